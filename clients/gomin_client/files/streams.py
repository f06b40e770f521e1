"""Audio and mels as bytes, block by block, while they are still being computed: for pipes and for networks."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from gomin_client.errors import UsageError
from gomin_client.files import formats
from gomin_client.mel.features import Mel, Wave

_UNKNOWN_LENGTH = 0xFFFFFFFF  # the usual length in the header of a WAV stream


def check_subtype(extension: str, subtype: str | None) -> None:
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


def encode(waves: Iterable[Wave], rate: int, extension: str, subtype: str | None) -> Iterator[bytes]:
    """A WAV file of unknown length, or bare samples; little-endian.

    Args:
        waves: (channels, samples) each.
        rate: in Hz.
        extension: of a format that can be written as a stream.
        subtype: one of the format's `streamable`; 16 bits by default.

    Yields:
        The header, if there is one, with the first block; then one for each block.
    """
    header = extension == ".wav"
    for wave in waves:
        start = _wav_header(len(wave), rate, is_float=subtype == "float") if header else b""
        header = False
        yield start + encode_samples(wave, subtype)


def encode_samples(wave: Wave, subtype: str | None = None) -> bytes:
    """(channels, samples) → interleaved little-endian samples; `subtype`: "16", which is the default, or "float"."""
    return _ENCODERS[subtype or "16"](wave.T).tobytes()


def decode_frames(data: bytes, n_mels: int) -> Mel:
    """Little-endian float32, `n_mels` values for each frame → (n_mels, frames); the data are whole frames."""
    return np.frombuffer(data, "<f4").reshape(-1, n_mels).T.astype(np.float32)


def numpy_extension(start: bytes) -> str:
    """The extension of a numpy file, by its first bytes; empty for another file."""
    return ".npy" if start.startswith(b"\x93NUMPY") else ".npz" if start.startswith(b"PK\x03\x04") else ""


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
