"""Decoders of audio: what a reader of an audio format returns, and the one that uses libsndfile."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

_UNKNOWN_LENGTH = 0x7FFF0000  # programs that write into a pipe put such lengths into the header


class Decoder(Protocol):
    """What the reader of an audio format returns: an open file, from which samples are read in order.

    Its methods raise `DecodingError` or OSError. It need not check the samples.

    Attributes:
        channels: number of channels.
        rate: sample rate in Hz.
    """

    channels: int
    rate: int

    def read(self, size: int) -> NDArray[np.float32]:
        """(up to `size`, channels) samples, full scale ±1; none at the end."""

    def is_truncated(self) -> bool:
        """Whether the file ended early; asked at the end."""

    def close(self) -> None:
        """Close the file."""


class DecodingError(Exception):
    """A file that cannot be decoded; the text says why."""


class SoundFileDecoder:
    """`Decoder` of all formats that libsndfile reads."""

    def __init__(self, source: Path | int) -> None:
        """Open a file.

        Args:
            source: its path, or the descriptor of a pipe, which is not closed.

        Raises:
            DecodingError: not an audio file.
        """
        with _soundfile_errors():
            if isinstance(source, Path):
                self._file = soundfile.SoundFile(os.fsencode(source))
            else:
                self._file = soundfile.SoundFile(source, closefd=False)
        self.rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self._read = 0

    def read(self, size: int) -> NDArray[np.float32]:
        """See `Decoder.read`."""
        with _soundfile_errors():
            samples: NDArray[np.float32] = self._file.read(size, dtype="float32", always_2d=True)
        self._read += len(samples)
        return samples

    def is_truncated(self) -> bool:
        """See `Decoder.is_truncated`."""
        return self._read < self._file.frames < _UNKNOWN_LENGTH or _is_truncated(self._file.extra_info)

    def close(self) -> None:
        """See `Decoder.close`."""
        self._file.close()


@contextmanager
def _soundfile_errors() -> Iterator[None]:
    try:
        yield
    except (ValueError, soundfile.SoundFileError) as error:
        raise DecodingError(getattr(error, "error_string", None) or str(error)) from error


def open_soundfile(path: Path) -> SoundFileDecoder:
    """Reader of all formats that libsndfile reads."""
    return SoundFileDecoder(path)


def _is_truncated(notes: str) -> bool:
    """Whether libsndfile's notes on the header tell of more samples than there are."""
    for declared, actual in re.findall(r"^\s*(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", notes, re.MULTILINE):
        if int(actual) < int(declared) < _UNKNOWN_LENGTH:
            return True
    return False
