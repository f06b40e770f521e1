"""From blocks that arrive over time to audio: checked one by one, vocoded in windows, several at a time."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.errors import UsageError
from gomin_client.inference.windows import Window, Windower
from gomin_client.inference.workers import Workers

Array = NDArray[np.float32]


class Blocks:
    """Blocks with or without a first axis of rows (channels of a recording, items of a batch), checked as they arrive.

    Iterating yields them with that axis, float32; blocks without anything new are left out. `restored` turns results
    with that axis into the form of the blocks.
    """

    def __init__(
        self, blocks: Iterable[Any], ndim: int, check: Callable[[Any], Array], rows: str, *, time_first: bool = False
    ) -> None:
        """Nothing is read yet.

        Args:
            blocks: arrays as Python code passes them.
            ndim: number of axes of a block without rows.
            check: one block → float32, rows first; it may raise.
            rows: what the rows are, for messages.
            time_first: time is the first axis of the blocks, not the last.
        """
        self._blocks = blocks
        self._ndim = ndim
        self._check = check
        self._rows = rows
        self._time = slice(0, 1) if time_first else slice(-1, None)
        self._shape: tuple[int, ...] | None = None  # of the rows

    def __iter__(self) -> Iterator[Array]:
        """Read the blocks.

        Raises:
            UsageError: a block has another number of rows than the one before; and what `check` raises.
        """
        for given in self._blocks:
            if 0 in tuple(getattr(given, "shape", ()))[self._time]:
                continue
            block = self._check(given)
            shape = block.shape[: block.ndim - self._ndim]
            if self._shape not in (None, shape):
                before, now = (
                    f"{rows[0]} {self._rows}" if rows else "one axis less" for rows in (self._shape or (), shape)
                )
                raise UsageError(f"a block with {now} after blocks with {before}: expected the same in each")
            self._shape = shape
            yield block if shape else block[np.newaxis]

    def restored(self, parts: Iterable[Array]) -> Iterator[Array]:
        """Parts of a result, (rows, …), without the axis of rows if the blocks had none."""
        for part in parts:
            yield part if self._shape else part[0]


class Counted:
    """Blocks whose samples are counted as they pass.

    Attributes:
        samples: number of samples so far.
    """

    def __init__(self, blocks: Iterable[Array]) -> None:
        self._blocks = blocks
        self.samples = 0

    def __iter__(self) -> Iterator[Array]:
        for block in self._blocks:
            self.samples += block.shape[-1]
            yield block


def trimmed(parts: Iterable[Array], recorded: Counted) -> Iterator[Array]:
    """Audio cut to the length of the recording that it is made from.

    The excess is at the very end, in a part that is made after the whole recording has been counted.

    Args:
        parts: (channels, samples) each.
        recorded: the recording, at the same sample rate.
    """
    made = 0
    for part in parts:
        kept = part[..., : recorded.samples - made]
        made += kept.shape[-1]
        yield kept


def vocode(
    blocks: Iterable[Array],
    windower: Windower,
    infer: Callable[[Array, Window], Array],
    workers: Workers,
    in_flight: int,
) -> Iterator[Array]:
    """Audio of a mel spectrogram, in order, as its windows are done.

    `blocks` is read in a separate thread, so that finished audio is not held back by frames that have yet to come; and
    no faster than audio is taken: at most `in_flight` windows are in flight or wait to be taken. A caller that stops
    early leaves that thread with the block that it waits for.

    Args:
        blocks: (channels, n_mels, any number of frames) each.
        windower: cuts them; a fresh one.
        infer: (channels, n_mels, frames), window → (channels, samples), a whole number of samples a frame; called from
            several threads.
        workers: threads that call it.
        in_flight: maximum number of windows.

    Yields:
        (channels, samples), one for each window.

    Raises:
        UsageError: the process has forked since the first part.
        Exception: what `blocks` or `infer` raised; audio before it has been yielded.
    """
    pending: queue.SimpleQueue[tuple[Window, Future[Array]] | BaseException | None] = queue.SimpleQueue()
    free = threading.Semaphore(in_flight)
    stopped = threading.Event()

    def feed() -> None:
        try:
            for window, piece in _cut(blocks, windower):
                free.acquire()
                if stopped.is_set():
                    return
                pending.put((window, workers.submit(partial(infer, piece, window))))
            pending.put(None)
        except BaseException as error:  # for the caller's thread
            pending.put(error)

    process = os.getpid()
    threading.Thread(target=feed, name="gomin-feed", daemon=True).start()
    try:
        while (item := pending.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            window, future = item
            audio = future.result()
            hop = audio.shape[-1] // window.length
            free.release()  # so that the next is in flight while the caller uses this one
            yield audio[..., window.skip * hop : (window.skip + window.keep) * hop]
            if os.getpid() != process:  # the threads have stayed in the parent
                raise UsageError("a stream cannot be continued in a forked process: begin a new one there")
    finally:
        stopped.set()
        free.release()


def _cut(blocks: Iterable[Array], windower: Windower) -> Iterator[tuple[Window, Array]]:
    """Windows and their frames; keeps only the frames that may be needed again."""
    held: Array | None = None
    origin = 0  # index of the first frame held
    for block in blocks:
        held = block if held is None else np.concatenate((held, block), axis=-1)
        for window in windower.feed(block.shape[-1]):
            yield window, _piece(held, window, origin)
        held = held[..., windower.needed_from - origin :]
        origin = windower.needed_from
    for window in windower.finish():
        assert held is not None  # there is a window only where there were frames
        yield window, _piece(held, window, origin)


def _piece(held: Array, window: Window, origin: int) -> Array:
    start = window.first - origin
    return np.ascontiguousarray(held[..., start : start + window.length])
