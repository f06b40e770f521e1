"""Objective distances between two recordings: log-mel, multi-resolution STFT, signal-to-noise ratio."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.batch.inputs import Source, find_sources
from gomin_client.errors import FileError, GominError, UsageError
from gomin_client.files import audio
from gomin_client.files.formats import AUDIO
from gomin_client.mel import resampling
from gomin_client.mel.features import RANGE_DB, MelConfig, Wave, mel_spectrogram

# Transform, hop and window lengths in samples: Yamamoto et al. 2020, Parallel WaveGAN, table 1.
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
_FLOOR = 1e-7  # smallest magnitude in logarithms


@dataclass(frozen=True)
class Distance:
    """The distance between a recording and its reference.

    Attributes:
        log_mel_l1_db: mean absolute difference of the mel spectrograms, in dB.
        spectral_convergence: Frobenius norm of the difference of the magnitudes, divided by the norm of the reference's
            magnitudes; mean over `RESOLUTIONS`.
        log_magnitude_l1: mean absolute difference of the natural logarithms of the magnitudes; mean over `RESOLUTIONS`.
        snr_db: power of the reference divided by the power of the difference, in dB; infinite for equal recordings.
        seconds: the duration compared; the longer recording is cut.
        length_difference: samples of the recording minus samples of the reference.
    """

    log_mel_l1_db: float
    spectral_convergence: float
    log_magnitude_l1: float
    snr_db: float
    seconds: float
    length_difference: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON; infinity, which JSON does not have, becomes null."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}


@dataclass(frozen=True)
class Comparison:
    """The result for one pair of recordings.

    Attributes:
        name: the name of the pair.
        distance: the distance; None if it could not be computed.
        problem: the reason for that; empty otherwise.
    """

    name: str
    distance: Distance | None = None
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {} if self.distance is None else self.distance.to_dict()
        return {"name": self.name, **found, **({"error": self.problem} if self.problem else {})}


def compare_files(reference: Path, other: Path, config: MelConfig) -> Distance:
    """Compare two audio files, mixed down to mono, at the sample rate of the mel settings.

    Raises:
        FileError: a file cannot be read.
    """
    waves = []
    for path in (reference, other):
        recording = audio.read(path)
        wave = resampling.resample(recording.mono()[0], recording.rate, config.sample_rate)
        if not np.isfinite(wave).all():
            raise FileError(f"{path}: is too loud to be resampled: it overflows")
        waves.append(wave)
    return distance(waves[0], waves[1], config)


def distance(reference: Wave, other: Wave, config: MelConfig) -> Distance:
    """Compare two waveforms, (samples,) each, at the sample rate of the mel settings; the longer one is cut."""
    length = min(len(reference), len(other))
    if length == 0:
        raise FileError("there is nothing to compare: a recording is empty")
    a, b = (wave[:length].astype(np.float64) for wave in (reference, other))
    mels = [mel_spectrogram(wave.astype(np.float32), config) for wave in (a, b)]
    convergences, log_differences = [], []
    for resolution in RESOLUTIONS:
        one, two = (_magnitudes(wave, *resolution) for wave in (a, b))
        norm = float(np.linalg.norm(one))
        difference = float(np.linalg.norm(two - one))
        convergences.append(difference / norm if norm else (math.inf if difference else 0.0))
        log_differences.append(float(np.abs(np.log(np.maximum(one, _FLOOR) / np.maximum(two, _FLOOR))).mean()))
    noise = float(np.square(b - a).sum())
    signal = float(np.square(a).sum())
    snr = math.inf if noise == 0 else -math.inf if signal == 0 else 10 * math.log10(signal / noise)
    return Distance(
        log_mel_l1_db=RANGE_DB * float(np.abs(mels[1] - mels[0]).mean()),
        spectral_convergence=sum(convergences) / len(RESOLUTIONS),
        log_magnitude_l1=sum(log_differences) / len(RESOLUTIONS),
        snr_db=snr,
        seconds=length / config.sample_rate,
        length_difference=len(other) - len(reference),
    )


def pair(references: Sequence[Source], others: Sequence[Source]) -> list[tuple[str, Path | None, Path | None]]:
    """Pair the files of two folders: files in the same subfolder with the same name, without its extension.

    If that is ambiguous, a.mp3 is paired with a.mp3.wav: that is how outputs are named that would otherwise collide.

    Returns:
        (name, reference, other), sorted by name; None for a file that one folder does not have.

    Raises:
        UsageError: two files of one folder have the same name and the rule above does not tell them apart.
    """
    right: dict[PurePath, Path] = {}
    for source in others:
        _add(right, source.folder / source.path.stem, source.path)
    left: dict[PurePath, Path] = {}
    for source in references:
        whole = source.folder / source.path.name
        _add(left, whole if whole in right else source.folder / source.path.stem, source.path)
    return [(str(name), left.get(name), right.get(name)) for name in sorted({*left, *right})]


def _add(side: dict[PurePath, Path], name: PurePath, path: Path) -> None:
    if name in side:
        raise UsageError(f"{side[name]} and {path} have the same name; rename one of them")
    side[name] = path


def compare_paths(reference: Path, other: Path) -> list[Comparison]:
    """Compare two recordings, or all recordings of two folders, with GOMIN's mel settings.

    Raises:
        UsageError: a file and a folder, a folder without recordings, or two recordings with one name in a folder.
        FileError: a path that does not exist.
    """
    config = MelConfig()
    for path in (reference, other):
        if not os.path.exists(path):
            raise FileError(f"{path}: no such file or folder")
    if reference.is_dir() != other.is_dir():
        raise UsageError(f"{reference} and {other}: one is a folder, the other a file")
    if not reference.is_dir():
        return [Comparison(f"{reference} {other}", compare_files(reference, other, config))]
    sources = [find_sources([f"{path}/"], (AUDIO,)).sources for path in (reference, other)]
    comparisons = []
    for name, one, two in pair(*sources):
        if one is None or two is None:
            comparisons.append(
                Comparison(name, problem=f"{one or two}: has no counterpart in {reference if two else other}")
            )
            continue
        try:
            comparisons.append(Comparison(name, compare_files(one, two, config)))
        except GominError as error:
            comparisons.append(Comparison(name, problem=str(error)))
    return comparisons


def table(comparisons: Sequence[Comparison]) -> str:
    """One line per comparison, and their mean if there are several."""
    width = max([4, *(len(comparison.name) for comparison in comparisons)])
    lines = [f"{'':<{width}}  mel L1 dB  spec. conv.  log mag. L1   SNR dB  seconds"]
    distances = [comparison.distance for comparison in comparisons if comparison.distance is not None]
    for comparison in comparisons:
        if comparison.distance is None:
            lines.append(f"{comparison.name:<{width}}  failed")
        else:
            lines.append(f"{comparison.name:<{width}}  {_row(comparison.distance)}")
    if len(distances) > 1:
        columns = zip(*(astuple(distance) for distance in distances), strict=True)
        mean = Distance(*(sum(column) / len(distances) for column in columns))
        lines.append(f"{'mean':<{width}}  {_row(mean)}")
    return "\n".join(lines)


def _row(distance: Distance) -> str:
    return (
        f"{distance.log_mel_l1_db:9.2f}  {distance.spectral_convergence:11.3f}  {distance.log_magnitude_l1:11.3f}  "
        f"{distance.snr_db:7.1f}  {distance.seconds:7.2f}"
    )


def _magnitudes(wave: NDArray[np.float64], n_fft: int, hop_length: int, win_length: int) -> NDArray[np.float64]:
    import librosa

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about recordings shorter than the transform, which are padded with zeros
        spectrum = librosa.stft(wave, n_fft=n_fft, hop_length=hop_length, win_length=win_length, pad_mode="constant")
    magnitudes: NDArray[np.float64] = np.abs(spectrum)
    return magnitudes
