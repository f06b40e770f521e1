"""Standard input and output: as temporary files, which most formats need, or as streams, block by block."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gomin_client.errors import FileError
from gomin_client.files import streams
from gomin_client.files.atomic import temporary_directory, temporary_file_errors
from gomin_client.mel.features import Wave

STREAM_SAMPLES = 1024  # read at a time; a read from a pipe blocks until all of them have arrived


@contextmanager
def stdin_as_file() -> Iterator[Path]:
    """Standard input, copied to a temporary file in which libraries can seek. Only numpy files get an extension.

    Raises:
        FileError: it is empty or cannot be read, or the temporary file cannot be written.
    """
    with temporary_directory() as directory:
        path = directory / "stdin"
        start = b""
        with temporary_file_errors(), path.open("wb") as file:
            # not through sys.stdin: an interrupt could not end Python while another thread holds its lock
            while data := _read(1 << 20):
                start += data[: 8 - len(start)]
                file.write(data)
            file.flush()
        if not start:
            raise FileError("standard input is empty")
        yield path.rename(path.with_suffix(streams.numpy_extension(start)))


@contextmanager
def stdout_as_file(extension: str) -> Iterator[Path]:
    """A temporary file that is copied to standard output at the end of the block."""
    with temporary_directory() as directory:
        path = directory / f"stdout{extension}"
        yield path
        with path.open("rb") as file:
            shutil.copyfileobj(file, _stdout())
        _stdout().flush()


def mel_stream(n_mels: int) -> Iterator[NDArray[np.float32]]:
    """Mel frames from standard input as they arrive: little-endian float32, `n_mels` values per frame, no header.

    Yields:
        (1, n_mels, frames) each.

    Raises:
        FileError: the input ends within a frame, is empty, or is a numpy file.
    """
    size = 4 * n_mels
    held = b""
    begun = False
    while data := _read(1 << 16):
        held += data
        if not begun and streams.numpy_extension(held):
            raise FileError("standard input is a numpy file: --stream expects bare float32 frames; leave --stream out")
        whole = len(held) // size * size
        if whole:
            begun = True
            yield streams.decode_frames(held[:whole], n_mels)[np.newaxis]
            held = held[whole:]
    if not held and not begun:
        raise FileError("standard input is empty")
    if held:
        raise FileError(f"standard input ends within a frame: a frame is {size} bytes, {n_mels} little-endian float32")


def write_stream(waves: Iterable[Wave], rate: int, extension: str, subtype: str | None) -> int:
    """Write audio to standard output block by block, as a WAV file of unknown length or as bare samples.

    Args:
        waves: (channels, samples) each.
        rate: in Hz.
        extension: of a format that can be written as a stream.
        subtype: one of the format's `streamable`; 16 bits by default. Little-endian.

    Returns:
        Samples written.
    """
    out = _stdout()
    written = 0

    def counted() -> Iterator[Wave]:
        nonlocal written
        for wave in waves:
            written += wave.shape[1]
            yield wave

    for block in streams.encode(counted(), rate, extension, subtype):
        out.write(block)
        out.flush()
    return written


def _read(size: int) -> bytes:
    try:
        return os.read(0, size)
    except OSError as error:
        raise FileError(f"standard input cannot be read: {error.strerror}") from error


def _stdout() -> BinaryIO:
    if sys.stdout is None:
        raise FileError("standard output is closed")
    return sys.stdout.buffer
