"""Audio formats that libsndfile reads and writes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from gomin_client.files.decoders import DecodingError, EncodingError
from gomin_client.mel.features import Wave

_BLOCK = 65536  # samples written at a time
_UNKNOWN_LENGTH = 0x7FFF0000  # programs that write into a pipe put such lengths into the header


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


def _is_truncated(notes: str) -> bool:
    """Whether libsndfile's notes on the header tell of more samples than there are."""
    for declared, actual in re.findall(r"^\s*(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", notes, re.MULTILINE):
        if int(actual) < int(declared) < _UNKNOWN_LENGTH:
            return True
    return False


def write(path: Path, waves: Iterable[Wave], rate: int, encoding: str, comment: str) -> int:
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
    """
    file_format, _, name = encoding.partition(":")
    samples = 0
    with ExitStack() as stack:
        file: soundfile.SoundFile | None = None
        for wave in waves:
            channels = len(wave)
            try:
                if file is None:
                    opened = soundfile.SoundFile(os.fsencode(path), "w", rate, channels, name, format=file_format)
                    file = stack.enter_context(opened)
                    with suppress(soundfile.SoundFileError):  # of formats without comments
                        file.comment = comment
                for first in range(0, wave.shape[1], _BLOCK):  # one long write overflows the Vorbis encoder's stack
                    file.write(wave[:, first : first + _BLOCK].T)
            except (soundfile.SoundFileError, ValueError) as error:
                reason = getattr(error, "error_string", None) or str(error)
                raise EncodingError(f"{name} with {channels} channels at {rate} Hz: {reason}") from error
            samples += wave.shape[1]
    return samples
