"""Audio files: reading and writing them block by block, with libsndfile unless `opening` chooses another decoder."""

from __future__ import annotations

import io
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from gomin_client.errors import FileError
from gomin_client.files import formats
from gomin_client.files.atomic import atomic_write
from gomin_client.files.decoders import TRUNCATED, VORBIS_ORDER, Decoder, DecodingError, EncodingError
from gomin_client.mel.features import Wave, refuse_excess
from gomin_client.mel.resampling import HIGHEST_RATE, LOWEST_RATE

if TYPE_CHECKING:
    from gomin_client.files.layouts import Layout
    from gomin_client.files.sections import PipeSection, Section

_UNKNOWN_LENGTH = 0x7FFF0000  # programs that write into a pipe put such lengths into the header
_MOST_OGG_CHANNELS = 255  # with more, libsndfile crashes
BLOCK = 65536  # samples read and written at a time


@dataclass(frozen=True)
class Recording:
    """The content of an audio file.

    Attributes:
        samples: (channels, samples) float32, full scale ±1.
        rate: sample rate in Hz.
        warning: a sentence about a defect of the file; empty if there is none.
    """

    samples: NDArray[np.float32]
    rate: int
    warning: str = ""

    def mono(self) -> NDArray[np.float32]:
        """(1, samples), the mean of all channels."""
        return mix(self.samples)


class AudioReader:
    """An audio file that is read block by block; a context manager.

    A file that ends earlier than its header says is read as far as it goes, with a warning.

    Attributes:
        channels: number of channels.
        rate: sample rate in Hz.
        seconds: duration that the file declares, in seconds, to show progress; None if it is not known.
        warning: a sentence about a defect of the file, once it has been read to its end; empty if there is none.
    """

    def __init__(self, source: Path | int) -> None:
        """Open a file.

        Args:
            source: its path, or the descriptor of a pipe in a format that can be read without seeking.

        Raises:
            FileError: not an audio file.
        """
        self._name = source if isinstance(source, Path) else "standard input"
        self.warning = ""
        self._lock = threading.Lock()
        self._is_closed = False
        with self._errors():
            self._decoder = _open(source)
        self.rate, self.channels = self._decoder.rate, self._decoder.channels
        frames = getattr(self._decoder, "frames", 0) if isinstance(source, Path) else 0
        self.seconds = frames / self.rate if 0 < frames < _UNKNOWN_LENGTH else None
        if not LOWEST_RATE <= self.rate <= HIGHEST_RATE:
            self._decoder.close()
            raise FileError(f"{self._name}: has a sample rate of {self.rate} Hz; expected at least {LOWEST_RATE}")

    def blocks(self, size: int = BLOCK) -> Iterator[Wave]:
        """The samples, (channels, up to `size`) float32 each; at least one sample in total.

        Raises:
            FileError: the file is damaged, or has no samples, or some are NaN or infinite.
        """
        total = 0
        while True:
            with self._lock, self._errors():
                if self._is_closed:  # by a caller that gave up while another thread reads
                    return
                samples = self._decoder.read(size).T
            if samples.shape[1] == 0:
                break
            if not np.isfinite(samples).all():
                raise FileError(f"{self._name}: contains NaN or infinite samples")
            total += samples.shape[1]
            yield np.ascontiguousarray(samples, dtype=np.float32)
        defect = self._decoder.defect()
        if total == 0 and defect:
            what = defect.partition(";")[0]
            raise FileError(f"{self._name}: cannot be read as audio: it {what}, and no samples of it can be decoded")
        if total == 0:
            raise FileError(f"{self._name}: contains no samples")
        if defect:
            self.warning = f"{self._name}: {defect}, {total / self.rate:.2f} s"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        path = self._name
        try:
            yield
        except FileNotFoundError as error:
            link = isinstance(path, Path) and path.is_symlink()
            what = "is a link to a file that does not exist" if link else "no such file"
            raise FileError(f"{path}: {what}") from error
        except OSError as error:
            raise FileError(f"{path}: cannot be read as audio: {error.strerror or error}") from error
        except DecodingError as error:
            raise FileError(f"{path}: cannot be read as audio: {error}") from error

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        # a read must have ended before its decoder is closed; a read from a pipe may never end: it is left open
        if isinstance(self._name, Path):
            with self._lock:
                self._is_closed = True
                self._decoder.close()


def _open(source: Path | int) -> Decoder:
    """The decoder for a file, or for a pipe."""
    from gomin_client.files import opening

    if not isinstance(source, Path):
        return opening.open_stream(source)
    status = source.stat()
    if stat.S_ISDIR(status.st_mode):
        raise FileError(f"{source}: is a directory; expected an audio file")
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{source}: is not a file; pass a pipe as standard input, -")
    if status.st_size == 0:
        raise FileError(f"{source}: is empty")
    known = formats.to_read(source)
    if known is None or known.kind != formats.AUDIO:
        return opening.open_audio(source)
    known.require(source)
    decoder: Decoder = formats.loaded(known.reader)(source)
    return decoder


class SoundFileDecoder:
    """`Decoder` of all formats that libsndfile reads.

    Attributes:
        frames: samples per channel that libsndfile expects.
    """

    def __init__(
        self,
        source: Path | Section | PipeSection,
        layout: Layout | None = None,
        defect: Callable[[], str] | None = None,
        *,
        is_reordered: bool = False,
    ) -> None:
        """Open a file.

        Args:
            source: its path, or the samples only.
            layout: of the samples, if they are given without a header.
            defect: gives the result of `defect`; by default libsndfile's notes do.
            is_reordered: its channels are in the order of Ogg Vorbis.

        Raises:
            DecodingError: not an audio file.
        """
        raw: dict[str, Any] = {}
        if layout is not None:
            endian = "BIG" if layout.is_big_endian else "LITTLE"
            raw = {"format": "RAW", "subtype": layout.encoding, "endian": endian}
            raw |= {"channels": layout.channels, "samplerate": layout.rate}
        self._source = source
        try:
            self._file = soundfile.SoundFile(os.fsencode(source) if isinstance(source, Path) else source, **raw)
        except (soundfile.SoundFileError, ValueError, TypeError, OverflowError) as error:
            self._close_source()
            raise DecodingError("its content is damaged, or of a kind that is not supported") from error
        self.rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.frames: int = self._file.frames
        self._order = VORBIS_ORDER.get(self.channels) if is_reordered else None
        self._defect = defect
        self._read = 0

    def read(self, size: int) -> NDArray[np.float32]:
        """See `Decoder.read`."""
        try:
            samples: NDArray[np.float32] = self._file.read(size, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, ValueError) as error:
            raise DecodingError(f"its content is damaged after {self._read / self.rate:.2f} s") from error
        self._read += len(samples)
        return samples if self._order is None else samples[:, self._order]

    def defect(self) -> str:
        """See `Decoder.defect`."""
        if self._defect is not None:
            return self._defect()
        is_short = self._read < self.frames < _UNKNOWN_LENGTH
        # libsndfile's notes on a header whose length is longer than the file
        lengths = re.findall(r"^\s*(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", self._file.extra_info, re.MULTILINE)
        is_noted = any(int(actual) < int(declared) < _UNKNOWN_LENGTH for declared, actual in lengths)
        return TRUNCATED if is_short or is_noted else ""

    def close(self) -> None:
        """See `Decoder.close`."""
        self._file.close()
        self._close_source()

    def _close_source(self) -> None:
        if not isinstance(self._source, Path):
            self._source.close()


def read(path: Path) -> Recording:
    """Read a whole audio file; see `AudioReader`.

    Raises:
        FileError: not an audio file, no samples, or some are NaN or infinite.
    """
    with AudioReader(path) as reader:
        samples = np.concatenate(list(reader.blocks()), axis=1)
        return Recording(samples, reader.rate, reader.warning)


def moderate(blocks: Iterable[Wave]) -> Iterator[Wave]:
    """The blocks of a recording as it is stored, none of them far beyond full scale.

    Raises:
        SuspiciousAudioError: one is.
    """
    return map(refuse_excess, blocks)


def mix(wave: Wave) -> Wave:
    """(channels, samples) → (1, samples), the mean of all channels."""
    # float64: the sum of loud channels may exceed what float32 can hold, their mean does not
    mean: NDArray[np.float64] = wave.mean(axis=0, keepdims=True, dtype=np.float64)
    return mean.astype(np.float32)


def write(path: Path, wave: Wave, rate: int, subtype: str | None = None) -> None:
    """Write an audio file in the format of its extension, atomically.

    Args:
        path: the file; its directory is created if it is missing.
        wave: (samples,) or (channels, samples) waveform; values beyond ±1 are clipped, except in float files.
        rate: sample rate in Hz.
        subtype: one of the format's subtypes in `formats.FORMATS`; the first by default.

    Raises:
        FileError: unknown extension, or the file cannot be written.
        UsageError: a subtype that the format does not have.
    """
    write_blocks(path, [np.atleast_2d(wave)], rate, subtype)


def write_blocks(path: Path, waves: Iterable[Wave], rate: int, subtype: str | None = None, comment: str = "") -> int:
    """`write` for a waveform in blocks.

    Args:
        path: see `write`.
        waves: (channels, any number of samples) each; at least one block.
        rate: see `write`.
        subtype: see `write`.
        comment: stored in the file, if its format supports comments.

    Returns:
        Samples written.

    Raises:
        FileError, UsageError: see `write`. Errors that `waves` raises are passed on, and no file is left.
    """
    known = formats.to_write(path)
    if known is None or known.kind != formats.AUDIO:
        what = path.suffix or "a file without extension"
        raise FileError(f"{path}: cannot write {what}; known are {', '.join(formats.writable(formats.AUDIO))}")
    known.check_subtype(subtype)
    encoding = known.subtypes[subtype or next(iter(known.subtypes))] if known.subtypes else ""
    save = formats.loaded(known.writer)
    with atomic_write(path) as part:
        try:
            samples: int = save(part, waves, rate, encoding, comment)
        except EncodingError as error:
            raise FileError(f"{path}: cannot be written as {error}") from error
    return samples


class _Output(io.FileIO):
    """A file that libsndfile writes through these methods.

    Errors in them would be lost, and libsndfile itself ignores errors at the end of a file: a file on a full disk would
    look complete.

    Attributes:
        error: the first error of a write, if there was one; or an interrupt.
    """

    error: BaseException | None = None

    def write(self, data: Any) -> int:
        """As of files, but all of the data; 0 after an error."""
        try:
            rest = memoryview(data)
            while self.error is None and rest:
                rest = rest[super().write(rest) :]
        except BaseException as error:
            self.error = error
        return len(data) if self.error is None else 0


def write_soundfile(path: Path, waves: Iterable[Wave], rate: int, encoding: str, comment: str) -> int:
    """Write an audio file with libsndfile.

    Args:
        path: see `write`.
        waves: see `write_blocks`.
        rate: see `write`.
        encoding: libsndfile's names of format and encoding, as "WAV:PCM_16".
        comment: see `write_blocks`.

    Returns:
        Samples written.

    Raises:
        EncodingError: the format does not take such audio.
        OSError: the file cannot be written, the disk is full, for example.
    """
    with _Output(path, "wb") as output:
        try:
            samples = _encode(output, waves, rate, encoding, comment)
        except Exception:
            if output.error is None:
                raise
        if output.error is not None:
            raise output.error
    return samples


def _encode(output: _Output, waves: Iterable[Wave], rate: int, encoding: str, comment: str) -> int:
    """See `write_soundfile`; the system's errors are in `output`."""
    file_format, _, name = encoding.partition(":")
    samples = 0
    with ExitStack() as stack:
        file: soundfile.SoundFile | None = None
        for wave in waves:
            channels = len(wave)
            if file_format == "OGG" and channels > _MOST_OGG_CHANNELS:
                raise EncodingError(f"{name} with {channels} channels; .wav has no such limits")
            if file_format == "OGG" and channels in VORBIS_ORDER:
                wave = wave[np.argsort(VORBIS_ORDER[channels])]
            try:
                if file is None:
                    opened = soundfile.SoundFile(output, "w", rate, channels, name, format=file_format)
                    file = stack.enter_context(opened)
                    with suppress(soundfile.SoundFileError):  # of formats without comments
                        file.comment = comment
                for first in range(0, wave.shape[1], BLOCK):  # one long write overflows the Vorbis encoder's stack
                    file.write(wave[:, first : first + BLOCK].T)
            except (soundfile.SoundFileError, ValueError) as error:
                raise EncodingError(f"{name} with {channels} channels at {rate} Hz; .wav has no such limits") from error
            samples += wave.shape[1]
    return samples
