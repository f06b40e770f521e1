"""Audio files as other programs leave them, made of files that soundfile and PyAV write."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 24000


def sweep(seconds: float = 1.0, channels: int = 1, seed: int = 0) -> NDArray[np.float32]:
    """Noise that swells, (samples, channels): its bit rate varies."""
    count = round(seconds * RATE)
    noise = np.random.default_rng(seed).uniform(-0.7, 0.7, (count, channels)) * np.linspace(0, 1, count)[:, np.newaxis]
    return noise.astype(np.float32)


def encoded(samples: NDArray[np.float32], kind: str, subtype: str | None = None, rate: int = RATE) -> bytes:
    """A file as libsndfile writes it."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, subtype, format=kind)
    return buffer.getvalue()


def wav(samples: NDArray[np.float32], riff: int, data: int, subtype: str = "PCM_16") -> bytes:
    """A WAV file with other sizes in its header."""
    content = encoded(samples, "WAV", subtype)
    start = content.index(b"data")
    return (
        content[:4] + struct.pack("<I", riff) + content[8 : start + 4] + struct.pack("<I", data) + content[start + 8 :]
    )


def mp3_from_a_pipe(samples: NDArray[np.float32]) -> bytes:
    """MP3 of a variable bit rate, without the Xing header: it is written last, where the output can seek."""
    content = encoded(samples, "MP3")
    assert b"Xing" in content[:64]
    return content[content.index(content[:2], 4) :]


def flac_from_a_pipe(samples: NDArray[np.float32]) -> bytes:
    """FLAC whose header has a length of 0."""
    content = bytearray(encoded(samples, "FLAC"))
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    return bytes(content)


def mp4(path: Path, samples: NDArray[np.float32], codec: str = "alac") -> None:
    """An MPEG-4 file; ALAC is lossless."""
    import av

    layout = "mono" if samples.shape[1] == 1 else "stereo"
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=RATE, layout=layout)
        values = np.ascontiguousarray((samples.T * 32767).astype(np.int16))
        frame = av.AudioFrame.from_ndarray(values, format="s16p", layout=layout)
        frame.sample_rate = RATE
        for made in (frame, None):
            container.mux(stream.encode(made))
