"""Windows of a mel spectrogram, vocoded one by one; their concatenated outputs equal the output for the whole.

A sample depends on `halo` frames to either side. So the output of a window is exact except for a halo at each end that
is not an end of the whole; there it is cut off, and the next window begins early enough to supply it. All windows have
one size, except that of a recording shorter than a window, so that a server can merge the windows of many callers into
batches: the last one begins early instead of being short.

A model's halo is computed at export, from the network's kernels (`halo_frames` of its config); the contract has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral

from gomin_client.errors import ContractError, UsageError

MIN_WINDOW = 512  # frames; shorter windows spend much work on halos, longer ones take memory
WORK_PER_HALO = 10  # halos per window, at least: a quarter more work than without windows


@dataclass(frozen=True)
class Window:
    """A part of a mel spectrogram, and the part of its output that is kept; all in frames.

    Attributes:
        first: index of its first frame in the whole.
        length: number of frames that are vocoded.
        skip: number of frames of output that are cut off in front.
        keep: number of frames of output that are kept after that.
    """

    first: int
    length: int
    skip: int
    keep: int


def default_size(halo: int) -> int:
    """A number of frames that limits the work spent on halos to a quarter."""
    return max(MIN_WINDOW, WORK_PER_HALO * halo)


def choose_size(wanted: int | None, halo: int, max_frames: int | None) -> int:
    """A number of frames for windows that a model takes.

    Args:
        wanted: the number that was asked for; None for a default.
        halo: number of frames to either side that the output of a frame depends on.
        max_frames: largest number of frames in one request; None if there is no bound.

    Raises:
        UsageError: the number that was asked for is out of range.
        ContractError: no window that the model takes would keep any output.
    """
    if wanted is None:
        size = default_size(halo) if max_frames is None else min(default_size(halo), max_frames)
        if size <= 2 * halo:
            raise ContractError(
                f"the model takes at most {max_frames} frames in one request (gomin.max_frames in its config.pbtxt), "
                f"but windows need more than {2 * halo}, twice the halo: raise the bound, or take fewer sampling steps"
            )
        return size
    check_window(wanted, halo)
    if max_frames is not None and wanted > max_frames:
        raise UsageError(
            f"a window of {wanted} frames: the model takes at most {max_frames} in one request "
            "(gomin.max_frames in its config.pbtxt)"
        )
    return int(wanted)


def overhead(size: int, halo: int) -> float:
    """Work spent on halos in a long recording, relative to the work without them."""
    return 2 * halo / (size - 2 * halo)


def check_window(size: int, halo: int, first_size: int | None = None) -> None:
    """Refuse windows whose whole output would be cut off; see `Windower`.

    Raises:
        UsageError: the window is too short; the message names the minimum.
    """
    for number in (size, first_size):
        if not isinstance(number, Integral | None):
            raise UsageError(f"a window of {number!r} frames: expected a whole number")
    if size <= 2 * halo:
        raise UsageError(f"a window of {size} frames: expected more than {2 * halo}, twice the model's halo")
    if first_size is not None and first_size <= halo:
        raise UsageError(f"a first window of {first_size} frames: expected more than {halo}, the model's halo")


class Windower:
    """Cuts a mel spectrogram of unknown length into windows while its frames arrive.

    A window is complete as soon as all its frames are there, and one more: until then it may be the last one, which
    keeps its output to the end.

    Attributes:
        size: number of frames of a window.
    """

    def __init__(self, size: int, halo: int, first_size: int | None = None) -> None:
        """Begin at frame 0.

        Args:
            size: number of frames of a window.
            halo: number of frames to either side that the output of a frame depends on.
            first_size: number of frames of the first window, to have its output soon; the next ones double up to
                `size`.

        Raises:
            UsageError: see `check_window`.
        """
        check_window(size, halo, first_size)
        self.size = size
        self._halo = halo
        self._next_size = min(first_size or size, size)
        self._arrived = 0
        self._made = 0  # number of frames of output that the windows so far keep

    @property
    def needed_from(self) -> int:
        """Index of the first frame that may be asked for again."""
        return max(0, min(self._made - self._halo, self._arrived - self.size))

    def feed(self, frames: int) -> Iterator[Window]:
        """Windows that are complete after `frames` more frames have arrived."""
        self._arrived += frames
        while True:
            first = max(0, self._made - self._halo)
            if self._arrived <= first + self._next_size:
                return
            until = first + self._next_size - self._halo
            yield self._window(first, self._next_size, until)
            self._next_size = min(2 * self._next_size, self.size)

    def finish(self) -> Iterator[Window]:
        """The last window: no more frames will come."""
        if self._made < self._arrived:
            length = min(self.size, self._arrived)
            yield self._window(self._arrived - length, length, self._arrived)

    def _window(self, first: int, length: int, until: int) -> Window:
        window = Window(first, length, self._made - first, until - self._made)
        self._made = until
        return window


def cut(frames: int, size: int, halo: int) -> list[Window]:
    """The windows of a mel spectrogram of known length; see `Windower`."""
    windower = Windower(size, halo)
    return [*windower.feed(frames), *windower.finish()]
