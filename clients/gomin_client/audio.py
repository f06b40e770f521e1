"""Audio files and sample rates: reading, mixing down, resampling, writing."""

from __future__ import annotations

import math
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from gomin_client.errors import FileError, UsageError
from gomin_client.files import appearing

Wave = NDArray[np.float32]

# Extension → libsndfile format, and what --subtype may ask of it; the first is the default: 16 bits where the format
# has a choice, as GOMIN's own program writes.
FORMATS: dict[str, tuple[str, dict[str, str]]] = {
    ".wav": ("WAV", {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}),
    ".flac": ("FLAC", {"16": "PCM_16", "24": "PCM_24"}),
    ".ogg": ("OGG", {"vorbis": "VORBIS", "opus": "OPUS"}),
    ".mp3": ("MP3", {"mp3": "MPEG_LAYER_III"}),
}

_BLOCK = 65536  # samples written at a time
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
        # float64: the sum of loud channels may exceed what float32 can hold, their mean does not
        mean: NDArray[np.float64] = self.samples.mean(axis=0, keepdims=True, dtype=np.float64)
        return mean.astype(np.float32)


def read(path: Path) -> Recording:
    """Read an audio file.

    A file that ends before its header says is read as far as it goes, with a warning.

    Raises:
        FileError: no audio file, no samples, or samples that are NaN or infinite.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise FileError(f"{path}: is a directory; expected an audio file")
        if status.st_size == 0:
            raise FileError(f"{path}: is empty")
        with soundfile.SoundFile(os.fsencode(path)) as file:
            samples = file.read(dtype="float32", always_2d=True).T
            rate, declared, notes = file.samplerate, file.frames, file.extra_info
    except FileNotFoundError as error:
        what = "is a link to a file that does not exist" if path.is_symlink() else "no such file"
        raise FileError(f"{path}: {what}") from error
    except (OSError, ValueError, soundfile.SoundFileError) as error:
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
        raise FileError(f"{path}: cannot be read as audio: {reason}") from error
    if rate <= 0:
        raise FileError(f"{path}: has a sample rate of {rate} Hz")
    if samples.shape[1] == 0:
        raise FileError(f"{path}: contains no samples")
    if not np.isfinite(samples).all():
        raise FileError(f"{path}: contains NaN or infinite samples")
    warning = ""
    if samples.shape[1] < declared or _is_truncated(notes):
        warning = f"{path}: is truncated; read as far as it goes, {samples.shape[1] / rate:.2f} s"
    return Recording(np.ascontiguousarray(samples), rate, warning)


def resample(wave: Wave, rate: int, target_rate: int) -> Wave:
    """Change the sample rate, at soxr's HQ quality, as librosa.load does for GOMIN's own program.

    Args:
        wave: (samples,) or (channels, samples) at `rate` Hz.
        rate: of the input.
        target_rate: of the result.

    Returns:
        As many channels of ceil(samples · target_rate / rate), float32.
    """
    if rate == target_rate:
        return wave
    length = math.ceil(wave.shape[-1] * target_rate / rate)
    channels = [
        soxr.resample(np.ascontiguousarray(channel), rate, target_rate, "HQ") for channel in np.atleast_2d(wave)
    ]
    resampled: NDArray[np.float32] = np.stack(
        [np.pad(channel[:length], (0, max(0, length - len(channel)))) for channel in channels]
    )
    return resampled.astype(np.float32) if wave.ndim == 2 else resampled[0].astype(np.float32)


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
    if path.suffix.lower() not in FORMATS:
        what = path.suffix or "a file without extension"
        raise FileError(f"{path}: cannot write {what}; known are {', '.join(FORMATS)}")
    check_subtype(path.suffix, subtype)
    file_format, subtypes = FORMATS[path.suffix.lower()]
    with appearing(path) as part:
        try:
            name = subtypes[subtype or next(iter(subtypes))]
            samples = wave.T
            channels = 1 if wave.ndim == 1 else wave.shape[0]
            with soundfile.SoundFile(os.fsencode(part), "w", rate, channels, name, format=file_format) as file:
                for first in range(0, len(samples), _BLOCK):  # one long write overflows the Vorbis encoder's stack
                    file.write(samples[first : first + _BLOCK])
        except (soundfile.SoundFileError, ValueError) as error:
            reason = getattr(error, "error_string", None) or str(error)
            raise FileError(
                f"{path}: cannot be written as {name} with {channels} channels at {rate} Hz: {reason}"
            ) from error


def _is_truncated(notes: str) -> bool:
    """Whether libsndfile's notes on the header tell of more samples than there are."""
    for declared, actual in re.findall(r"^\s*(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", notes, re.MULTILINE):
        if int(actual) < int(declared) < _UNKNOWN_LENGTH:
            return True
    return False
