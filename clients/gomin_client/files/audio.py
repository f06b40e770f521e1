"""Audio files: reading, mixing down, writing."""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from gomin_client.errors import FileError, UsageError
from gomin_client.files.atomic import appearing
from gomin_client.mel.features import Wave

# Extension → libsndfile format, and what --subtype may ask of it; the first is the default: 16 bits where the format
# has a choice, as GOMIN's own program writes.
FORMATS: dict[str, tuple[str, dict[str, str]]] = {
    ".wav": ("WAV", {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}),
    ".flac": ("FLAC", {"16": "PCM_16", "24": "PCM_24"}),
    ".ogg": ("OGG", {"vorbis": "VORBIS", "opus": "OPUS"}),
    ".mp3": ("MP3", {"mp3": "MPEG_LAYER_III"}),
}

BLOCK = 65536  # samples read and written at a time
_UNKNOWN_LENGTH = 0x7FFF0000  # programs that write into a pipe put such lengths into the header


@dataclass(frozen=True)
class Recording:
    """What an audio file holds.

    Attributes:
        samples: (channels, samples) float32, full scale ±1.
        rate: sample rate in Hz.
        warning: what is odd about the file; empty if nothing is.
    """

    samples: NDArray[np.float32]
    rate: int
    warning: str = ""

    def mono(self) -> NDArray[np.float32]:
        """(1, samples), the mean of all channels."""
        return mix(self.samples)


class Reader:
    """An audio file that is read block by block; a context manager.

    A file that ends before its header says is read as far as it goes, with a warning.

    Attributes:
        channels: how many.
        rate: sample rate in Hz.
        warning: what was odd about the file, once it has been read; empty if nothing was.
    """

    def __init__(self, source: Path | int) -> None:
        """Open a file.

        Args:
            source: its path, or the descriptor of a pipe; of formats that can be read without going back.

        Raises:
            FileError: no audio file.
        """
        self._name = source if isinstance(source, Path) else "standard input"
        self.warning = ""
        self._lock = threading.Lock()
        with self._errors():
            if isinstance(source, Path):
                status = source.stat()
                if stat.S_ISDIR(status.st_mode):
                    raise FileError(f"{source}: is a directory; expected an audio file")
                if status.st_size == 0:
                    raise FileError(f"{source}: is empty")
                self._file = soundfile.SoundFile(os.fsencode(source))
            else:
                self._file = soundfile.SoundFile(source, closefd=False)
        self.rate, self.channels = self._file.samplerate, self._file.channels
        if self.rate <= 0:
            self._file.close()
            raise FileError(f"{self._name}: has a sample rate of {self.rate} Hz")

    def blocks(self, size: int = BLOCK) -> Iterator[Wave]:
        """The samples, (channels, up to `size`) float32 each, at least one in all.

        Raises:
            FileError: the file is damaged, or has no samples, or samples that are NaN or infinite.
        """
        total = 0
        while True:
            with self._lock, self._errors():
                if self._file.closed:  # by a caller that has given up, while this is read in another thread
                    return
                samples = self._file.read(size, dtype="float32", always_2d=True).T
            if samples.shape[1] == 0:
                break
            if not np.isfinite(samples).all():
                raise FileError(f"{self._name}: contains NaN or infinite samples")
            total += samples.shape[1]
            yield np.ascontiguousarray(samples)
        if total == 0:
            raise FileError(f"{self._name}: contains no samples")
        if total < self._file.frames < _UNKNOWN_LENGTH or _is_truncated(self._file.extra_info):
            self.warning = f"{self._name}: is truncated; read as far as it goes, {total / self.rate:.2f} s"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        path = self._name
        try:
            yield
        except FileNotFoundError as error:
            link = isinstance(path, Path) and path.is_symlink()
            what = "is a link to a file that does not exist" if link else "no such file"
            raise FileError(f"{path}: {what}") from error
        except (OSError, ValueError, soundfile.SoundFileError) as error:
            reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
            raise FileError(f"{path}: cannot be read as audio: {reason}") from error

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        # libsndfile must not close what it reads; of a pipe, a read may take forever: it is left alone
        if isinstance(self._name, Path):
            with self._lock:
                self._file.close()


def read(path: Path) -> Recording:
    """Read a whole audio file; see `Reader`.

    Raises:
        FileError: no audio file, no samples, or samples that are NaN or infinite.
    """
    with Reader(path) as reader:
        samples = np.concatenate(list(reader.blocks()), axis=1)
        return Recording(samples, reader.rate, reader.warning)


def mix(wave: Wave) -> Wave:
    """(channels, samples) → (1, samples), the mean of all channels."""
    # float64: the sum of loud channels may exceed what float32 can hold, their mean does not
    mean: NDArray[np.float64] = wave.mean(axis=0, keepdims=True, dtype=np.float64)
    return mean.astype(np.float32)


def check_subtype(extension: str, subtype: str | None) -> None:
    """Refuse a subtype that a format does not have, before any work is done.

    Raises:
        UsageError: names those it has.
    """
    known = FORMATS[extension.lower()][1]
    if subtype is not None and subtype not in known:
        raise UsageError(f"--subtype {subtype}: {extension} files have {', '.join(known)}")


def write(path: Path, wave: Wave, rate: int, subtype: str | None = None) -> None:
    """Write an audio file in the format of its extension; it appears complete or not at all.

    Args:
        path: its directory is made if missing.
        wave: (samples,) or (channels, samples) waveform; what exceeds ±1 is clipped, but in float files.
        rate: in Hz.
        subtype: one of those of the format in `FORMATS`; its first by default.

    Raises:
        FileError: unknown extension, or the file cannot be written.
        UsageError: a subtype that the format does not have.
    """
    write_blocks(path, [np.atleast_2d(wave)], rate, subtype)


def write_blocks(path: Path, waves: Iterable[Wave], rate: int, subtype: str | None = None, comment: str = "") -> int:
    """`write` for a waveform that comes block by block.

    Args:
        path: see `write`.
        waves: (channels, any number of samples) each; at least one block.
        rate: see `write`.
        subtype: see `write`.
        comment: kept in the file, where its format has a place for it.

    Returns:
        Samples written.

    Raises:
        FileError, UsageError: see `write`; and what `waves` raises: then there is no file.
    """
    if path.suffix.lower() not in FORMATS:
        what = path.suffix or "a file without extension"
        raise FileError(f"{path}: cannot write {what}; known are {', '.join(FORMATS)}")
    check_subtype(path.suffix, subtype)
    file_format, subtypes = FORMATS[path.suffix.lower()]
    name = subtypes[subtype or next(iter(subtypes))]
    samples = 0
    with appearing(path) as part, ExitStack() as stack:
        file: soundfile.SoundFile | None = None
        for wave in waves:
            channels = len(wave)
            try:
                if file is None:
                    opened = soundfile.SoundFile(os.fsencode(part), "w", rate, channels, name, format=file_format)
                    file = stack.enter_context(opened)
                    with suppress(soundfile.SoundFileError):  # of formats without comments
                        file.comment = comment
                for first in range(0, wave.shape[1], BLOCK):  # one long write overflows the Vorbis encoder's stack
                    file.write(wave[:, first : first + BLOCK].T)
            except (soundfile.SoundFileError, ValueError) as error:
                reason = getattr(error, "error_string", None) or str(error)
                raise FileError(
                    f"{path}: cannot be written as {name} with {channels} channels at {rate} Hz: {reason}"
                ) from error
            samples += wave.shape[1]
    return samples


def _is_truncated(notes: str) -> bool:
    """Whether libsndfile's notes on the header tell of more samples than there are."""
    for declared, actual in re.findall(r"^\s*(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", notes, re.MULTILINE):
        if int(actual) < int(declared) < _UNKNOWN_LENGTH:
            return True
    return False
