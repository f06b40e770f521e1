"""Audio that FFmpeg decodes, through PyAV: an optional package, which the extra `formats` installs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gomin_client.files import scanning
from gomin_client.files.decoders import TRUNCATED, DecodingError
from gomin_client.files.sections import Section

if TYPE_CHECKING:
    import av

    from gomin_client.files.audio import SoundFileDecoder

EXTRA = "pip install 'gomin-triton[formats]'"

# full scale of integer samples, by the name of FFmpeg's sample format without "p" for planar
_FULL_SCALE = {"u8": 1 << 7, "s16": 1 << 15, "s32": 1 << 31, "s64": 1 << 63}


def is_installed() -> bool:
    """Whether PyAV can be imported."""
    return importlib.util.find_spec("av") is not None


# what fails where streams are joined: headers, and a first frame that needs the one before it
_TOLERATED_PACKETS = 4
_TOLERATED_S = 0.25
# FFmpeg's names of containers that give a duration, not an estimate of it
_WITH_DURATION = ("mp4", "tta", "ape", "wv")


class Readable(Protocol):
    """A file to read forward."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""


def open_required(path: Path, demuxer: str, reason: str, defect: str = "") -> FFmpegDecoder:
    """Open a file that only FFmpeg decodes exactly.

    Args:
        path: the file.
        demuxer: see `FFmpegDecoder`.
        reason: why, for the message if PyAV is not installed.
        defect: see `FFmpegDecoder`.

    Raises:
        DecodingError, OSError: see `FFmpegDecoder`; or PyAV is not installed.
    """
    if not is_installed():
        raise DecodingError(f"{reason}, which needs PyAV: {EXTRA}")
    return FFmpegDecoder(path, demuxer, defect=defect or (TRUNCATED if scanning.is_cut(path, demuxer) else ""))


class FFmpegDecoder:
    """`Decoder` of everything that FFmpeg decodes, frame by frame to the end of the file."""

    def __init__(self, source: Path | Section | Readable, demuxer: str, *, defect: str = "") -> None:
        """Open a file.

        Args:
            source: its path, a part of it, or a pipe, which is not closed.
            demuxer: FFmpeg's name of the container. Its own guess is not used: among its formats are playlists, which
                name other files and hosts.
            defect: what is known to be wrong with the file; see `Decoder.defect`.

        Raises:
            DecodingError: damaged, or no audio in it.
            OSError: the file cannot be read.
        """
        import av

        # not by name, which FFmpeg may take for a URL
        if isinstance(source, Path):
            source = Section(source, [(0, source.stat().st_size)])
        self._section = source if isinstance(source, Section) else None
        try:
            problem = "damaged, or of a kind that is not supported"
            with _Errors(f"it is {'truncated; what is missing is needed' if defect == TRUNCATED else problem}"):
                self._container = av.open(source, mode="r", format=demuxer, metadata_errors="ignore")
                if not self._container.streams.audio:
                    raise DecodingError("it contains no audio")
                self._stream = self._container.streams.audio[0]
                context = self._stream.codec_context  # None if the encoding is not known
                self.rate = int(context.sample_rate or 0) if context is not None else 0
                self.channels = int(context.channels or 0) if context is not None else 0
                if not self.channels or not self.rate:
                    raise DecodingError("its audio is damaged, or of an encoding that is not supported")
        except BaseException:
            self.close()
            raise
        self._expected_s = self._duration() if demuxer in _WITH_DURATION else 0.0
        self._read = self._packets = self._damaged = 0
        self._error = ""
        self._defect = defect
        self._frames = self._decoded()
        self._held: list[NDArray[np.float32]] = []

    def read(self, size: int) -> NDArray[np.float32]:
        """See `Decoder.read`."""
        held = sum(map(len, self._held))
        while held < size:
            frame = next(self._frames, None)
            if frame is None:
                break
            self._held.append(frame)
            held += len(frame)
        if not self._held:
            return np.zeros((0, self.channels), np.float32)
        samples = np.concatenate(self._held)
        self._held = [samples[size:]] if len(samples) > size else []
        self._read += min(size, len(samples))
        return samples[:size]

    def defect(self) -> str:
        """See `Decoder.defect`."""
        if self._error:
            return f"{self._error}; read as far as it goes"
        if self._defect:
            return self._defect
        if self._read / self.rate < self._expected_s - _TOLERATED_S:
            return TRUNCATED
        if self._damaged > max(_TOLERATED_PACKETS, self._packets // 250):
            return f"is damaged; {self._damaged} of {self._packets} packets were left out"
        count = len(self._container.streams.audio)
        return f"contains {count} audio streams; the first was read" if count > 1 else ""

    def close(self) -> None:
        """See `Decoder.close`."""
        container: av.container.InputContainer | None = getattr(self, "_container", None)
        if container is not None:
            container.close()
        if self._section is not None:
            self._section.close()

    def _duration(self) -> float:
        """The duration in seconds that the file declares; 0 if it does not."""
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        return (self._container.duration or 0) / 1e6  # in microseconds

    def _decoded(self) -> Iterator[NDArray[np.float32]]:
        """Frames, (samples, channels) each."""
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                with _Errors("is damaged"):
                    packet = next(packets, None)
            except DecodingError as error:
                self._error = str(error)
                packet = None
            if packet is None:
                return
            self._packets += 1
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                self._damaged += 1
                continue
            for frame in frames:
                yield self._samples(frame)

    def _samples(self, frame: Any) -> NDArray[np.float32]:
        channels = frame.layout.nb_channels
        if (frame.sample_rate, channels) != (self.rate, self.channels):
            raise DecodingError(
                f"its format changes from {self.channels} channels at {self.rate} Hz to {channels} channels at "
                f"{frame.sample_rate} Hz; split it there"
            )
        try:
            values = frame.to_ndarray()
        except ValueError as error:
            raise DecodingError(f"its samples, {frame.format.name}, are of a kind that is not supported") from error
        samples = values.T if frame.format.is_planar else values.reshape(-1, channels)
        scale = _FULL_SCALE.get(frame.format.name.removesuffix("p"))
        if scale is not None:
            offset = scale if frame.format.name.startswith("u") else 0
            samples = (samples.astype(np.float64) - offset) / scale
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is refused later
            return np.ascontiguousarray(samples, dtype=np.float32)


class _Errors:
    """Turns FFmpeg's errors into `DecodingError`; errors of the file itself remain OSErrors."""

    def __init__(self, problem: str) -> None:
        self._problem = problem

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        import av

        if isinstance(error, av.error.FFmpegError):
            raise DecodingError(self._problem) from error


class ResumingDecoder:
    """Decodes with libsndfile and, from where that fails, with FFmpeg."""

    def __init__(self, first: SoundFileDecoder, path: Path, demuxer: str) -> None:
        """Begin with libsndfile.

        Args:
            first: the file in libsndfile.
            path: the file.
            demuxer: see `FFmpegDecoder`.
        """
        self.rate, self.channels = first.rate, first.channels
        self._path, self._demuxer, self.frames = path, demuxer, first.frames
        self._first = first
        self._second: FFmpegDecoder | None = None
        self._read = 0

    def read(self, size: int) -> NDArray[np.float32]:
        """See `Decoder.read`."""
        if self._second is None:
            try:
                samples = self._first.read(size)
            except DecodingError:
                if not is_installed():
                    raise
                self._second = FFmpegDecoder(self._path, self._demuxer)
                skipped = 0
                while skipped < self._read and (count := len(self._second.read(min(size, self._read - skipped)))):
                    skipped += count
        if self._second is not None:
            samples = self._second.read(size)
        self._read += len(samples)
        return samples

    def defect(self) -> str:
        """See `Decoder.defect`."""
        if self._second is None:
            return self._first.defect()
        is_short = self._read < self.frames
        return TRUNCATED if is_short else self._second.defect() or "is damaged; read as far as it goes"

    def close(self) -> None:
        """See `Decoder.close`."""
        self._first.close()
        if self._second is not None:
            self._second.close()
