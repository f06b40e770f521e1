"""Standard input and output: as temporary files, which most formats need, or as streams, block by block."""

from __future__ import annotations

import os
import shutil
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gomin_client.errors import FileError, UsageError
from gomin_client.files import formats
from gomin_client.files.atomic import temporary_directory, temporary_file_errors
from gomin_client.mel.features import Wave

STREAM_SAMPLES = 1024  # read at a time; a read from a pipe blocks until all of them have arrived
_UNKNOWN_LENGTH = 0xFFFFFFFF  # the usual length in the header of a WAV stream


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
        yield path.rename(path.with_suffix(_extension(start)))


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
        if not begun and _extension(held):
            raise FileError("standard input is a numpy file: --stream expects bare float32 frames; leave --stream out")
        whole = len(held) // size * size
        if whole:
            begun = True
            yield np.frombuffer(held[:whole], "<f4").reshape(-1, n_mels).T[np.newaxis].astype(np.float32)
            held = held[whole:]
    if not held and not begun:
        raise FileError("standard input is empty")
    if held:
        raise FileError(f"standard input ends within a frame: a frame is {size} bytes, {n_mels} little-endian float32")


def check_stream_subtype(extension: str, subtype: str | None) -> None:
    """Refuse a subtype that cannot be written while the audio is still being computed.

    Args:
        extension: of a format that can.
        subtype: None for the format's first.

    Raises:
        UsageError: another subtype.
    """
    streamed = next(known for known in formats.FORMATS if known.extension == extension)
    if subtype not in (None, *streamed.streamable):
        raise UsageError(f"--stream: --subtype {subtype}: expected {' or '.join(streamed.streamable)}")


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
    encode = _ENCODERS[subtype or "16"]
    out = _stdout()
    samples = 0
    for wave in waves:
        if samples == 0 and extension == ".wav":
            out.write(_wav_header(len(wave), rate, is_float=subtype == "float"))
        out.write(encode(wave.T).tobytes())
        out.flush()
        samples += wave.shape[1]
    return samples


def _encode_16(samples: Wave) -> NDArray[np.int16]:
    encoded: NDArray[np.int16] = np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2")
    return encoded


_ENCODERS: dict[str, Callable[[Wave], NDArray[np.generic]]] = {
    "16": _encode_16,
    "float": lambda samples: samples.astype("<f4"),
}


def _wav_header(channels: int, rate: int, is_float: bool) -> bytes:
    tag, width = (3, 4) if is_float else (1, 2)
    layout = struct.pack("<HHIIHH", tag, channels, rate, rate * channels * width, channels * width, 8 * width)
    size = struct.pack("<I", _UNKNOWN_LENGTH)
    return b"RIFF" + size + b"WAVEfmt " + struct.pack("<I", len(layout)) + layout + b"data" + size


def _extension(start: bytes) -> str:
    return ".npy" if start.startswith(b"\x93NUMPY") else ".npz" if start.startswith(b"PK\x03\x04") else ""


def _read(size: int) -> bytes:
    try:
        return os.read(0, size)
    except OSError as error:
        raise FileError(f"standard input cannot be read: {error.strerror}") from error


def _stdout() -> BinaryIO:
    if sys.stdout is None:
        raise FileError("standard output is closed")
    return sys.stdout.buffer
