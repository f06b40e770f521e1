"""Audio files and sample rates: reading, mixing down, resampling, writing."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from gomin_client.errors import FileError
from gomin_client.files import appearing

Wave = NDArray[np.float32]

# Extension → libsndfile format. 16 bits where the format has a choice, as GOMIN's own program writes.
FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", None)}


def read(path: Path) -> tuple[Wave, int]:
    """Read an audio file and mix it down to one channel, the mean of all.

    Returns:
        (samples,) float32 waveform, full scale ±1, and its sample rate in Hz.

    Raises:
        FileError: no audio file, no samples, or samples that are NaN or infinite.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise FileError(f"{path}: is a directory; expected an audio file")
        if status.st_size == 0:
            raise FileError(f"{path}: is empty")
        samples, rate = soundfile.read(os.fsencode(path), dtype="float32", always_2d=True)
    except FileNotFoundError as error:
        raise FileError(f"{path}: no such file") from error
    except (OSError, soundfile.SoundFileError) as error:
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
        raise FileError(f"{path}: cannot be read as audio: {reason}") from error
    if rate <= 0:
        raise FileError(f"{path}: has a sample rate of {rate} Hz")
    if len(samples) == 0:
        raise FileError(f"{path}: contains no samples")
    if not np.isfinite(samples).all():
        raise FileError(f"{path}: contains NaN or infinite samples")
    # float64: the sum of loud channels may exceed what float32 can hold, their mean does not
    return samples.mean(axis=1, dtype=np.float64).astype(np.float32), rate


def resample(wave: Wave, rate: int, target_rate: int) -> Wave:
    """Change the sample rate, at soxr's HQ quality, as librosa.load does for GOMIN's own program.

    Args:
        wave: (samples,) at `rate` Hz.
        rate: of the input.
        target_rate: of the result.

    Returns:
        (ceil(samples · target_rate / rate),) float32.
    """
    if rate == target_rate:
        return wave
    length = math.ceil(len(wave) * target_rate / rate)
    resampled = soxr.resample(wave, rate, target_rate, quality="HQ")[:length]
    return np.pad(resampled, (0, length - len(resampled))).astype(np.float32)


def write(path: Path, wave: Wave, rate: int) -> None:
    """Write an audio file in the format of its extension; it appears complete or not at all.

    Args:
        path: its directory is made if missing.
        wave: (samples,) waveform; what exceeds ±1 is clipped.
        rate: in Hz.

    Raises:
        FileError: unknown extension, or the file cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        what = path.suffix or "a file without extension"
        raise FileError(f"{path}: cannot write {what}; known are {', '.join(FORMATS)}")
    file_format, subtype = FORMATS[path.suffix.lower()]
    with appearing(path) as part:
        try:
            soundfile.write(os.fsencode(part), wave, rate, format=file_format, subtype=subtype)
        except soundfile.SoundFileError as error:
            raise FileError(f"{path}: cannot be written: {error}") from error
