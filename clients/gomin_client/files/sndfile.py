"""Audio formats that libsndfile reads and writes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from gomin_client.files.decoders import TRUNCATED, DecodingError, EncodingError
from gomin_client.files.layouts import Layout
from gomin_client.files.sections import PipeSection, Section
from gomin_client.mel.features import Wave

_BLOCK = 65536  # samples written at a time
_UNKNOWN_LENGTH = 0x7FFF0000  # programs that write into a pipe put such lengths into the header


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
    ) -> None:
        """Open a file.

        Args:
            source: its path, or the samples only.
            layout: of the samples, if they are given without a header.
            defect: gives the result of `defect`; by default libsndfile's notes do.

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
        except (soundfile.SoundFileError, ValueError, TypeError) as error:
            self._close_source()
            raise DecodingError("its content is damaged, or of a kind that is not supported") from error
        self.rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.frames: int = self._file.frames
        self._defect = defect
        self._read = 0

    def read(self, size: int) -> NDArray[np.float32]:
        """See `Decoder.read`."""
        try:
            samples: NDArray[np.float32] = self._file.read(size, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, ValueError) as error:
            raise DecodingError(f"its content is damaged after {self._read / self.rate:.2f} s") from error
        self._read += len(samples)
        return samples

    def defect(self) -> str:
        """See `Decoder.defect`."""
        if self._defect is not None:
            return self._defect()
        is_short = self._read < self.frames < _UNKNOWN_LENGTH
        return TRUNCATED if is_short or _notes_say_truncated(self._file.extra_info) else ""

    def close(self) -> None:
        """See `Decoder.close`."""
        self._file.close()
        self._close_source()

    def _close_source(self) -> None:
        if not isinstance(self._source, Path):
            self._source.close()


def _notes_say_truncated(notes: str) -> bool:
    """Whether libsndfile's notes on the header give a length that is longer than the file."""
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
