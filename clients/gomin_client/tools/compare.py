"""Objective distances between two recordings: log-mel, multi-resolution STFT, signal-to-noise ratio."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
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
from gomin_client.mel.features import RANGE_DB, MelConfig, Wave, centred, hann, mel_spectrogram, stft_blocks

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
        version: the file or folder that is compared with the reference; empty if there is only one.
    """

    name: str
    distance: Distance | None = None
    problem: str = ""
    version: str = ""

    @property
    def label(self) -> str:
        """The name, and the version if there are several."""
        return f"{self.name} {self.version}" if self.version else self.name

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {} if self.distance is None else self.distance.to_dict()
        version = {"version": self.version} if self.version else {}
        return {"name": self.name, **version, **found, **({"error": self.problem} if self.problem else {})}


@dataclass(frozen=True)
class Versions:
    """One recording in several versions, the reference first.

    Attributes:
        name: the name that the versions share; of single files, the path of the reference.
        paths: one for each version; None for a version that a folder does not have.
        waves: (samples,) of each version, mono, at the sample rate of the mel settings; None if it was not read.
        comparisons: of each version but the reference; None for one that is missing like the reference.
    """

    name: str
    paths: tuple[Path | None, ...]
    waves: tuple[Wave | None, ...]
    comparisons: tuple[Comparison | None, ...]


def read_mono(path: Path, config: MelConfig) -> Wave:
    """Read an audio file, mixed down to mono, at the sample rate of the mel settings: (samples,).

    Raises:
        FileError: the file cannot be read.
    """
    recording = audio.read(path)
    wave = resampling.resample(recording.mono()[0], recording.rate, config.sample_rate)
    if not np.isfinite(wave).all():
        raise FileError(f"{path}: is too loud to be resampled: it overflows")
    return wave


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


def match(sources: Sequence[Sequence[Source]]) -> list[tuple[str, tuple[Path | None, ...]]]:
    """Match the files of several folders, the reference's first, by the rule of `pair`.

    Returns:
        (name, one path for each folder), sorted by name; None for a file that a folder does not have.

    Raises:
        UsageError: see `pair`.
    """
    references, *others = sources
    names: dict[Path | str, str] = {}
    found: dict[Path | str, list[Path | None]] = {}
    for index, other in enumerate(others, 1):
        for name, one, two in pair(references, other):
            # a reference's name depends on the folder that it is paired with: a.mp3 is a or a.mp3
            key = one or name
            names.setdefault(key, name)
            found.setdefault(key, [one, *[None] * len(others)])[index] = two
    return sorted((names[key], tuple(paths)) for key, paths in found.items())


def compare_paths(
    reference: Path,
    *others: Path,
    begin: Callable[[int], None] = lambda _: None,
    visit: Callable[[Versions], None] = lambda _: None,
) -> list[Comparison]:
    """Compare recordings, or all recordings of folders, with a reference, with GOMIN's mel settings.

    Args:
        reference: a recording or a folder.
        others: what is compared with it, of the same kind; at least one.
        begin: called with the number of recordings, before the first one is read.
        visit: called with each recording as soon as it is compared; waveforms are not kept after that.

    Raises:
        UsageError: a file and a folder, a folder without recordings, or two recordings with one name in a folder.
        FileError: a path that does not exist; a file that cannot be read, unless folders are compared.
    """
    config = MelConfig()
    roots = (reference, *others)
    for path in roots:
        if not os.path.exists(path):
            raise FileError(f"{path}: no such file or folder")
        if path.is_dir() != reference.is_dir():
            raise UsageError(f"{reference} and {path}: one is a folder, the other a file")
    if not reference.is_dir():
        begin(1)
        waves = tuple(read_mono(path, config) for path in roots)
        several = len(others) > 1
        comparisons = [
            Comparison(
                str(reference) if several else f"{reference} {path}",
                version=str(path) if several else "",
                distance=distance(waves[0], wave, config),
            )
            for path, wave in zip(others, waves[1:], strict=True)
        ]
        visit(Versions(str(reference), roots, waves, tuple(comparisons)))
        return comparisons
    comparisons = []
    matched = match([find_sources([f"{path}/"], (AUDIO,)).sources for path in roots])
    begin(len(matched))
    for name, paths in matched:
        versions = _compare_versions(name, paths, roots, config)
        visit(versions)
        comparisons += [comparison for comparison in versions.comparisons if comparison is not None]
    return comparisons


def _compare_versions(name: str, paths: tuple[Path | None, ...], roots: Sequence[Path], config: MelConfig) -> Versions:
    """Compare the versions of one recording; problems become part of the result."""
    waves: list[Wave | None] = []
    comparisons: list[Comparison | None] = []
    unreadable = ""  # why the reference cannot be read
    try:
        waves.append(None if paths[0] is None else read_mono(paths[0], config))
    except GominError as error:
        waves.append(None)
        unreadable = str(error)
    for root, path in zip(roots[1:], paths[1:], strict=True):
        version = str(root) if len(roots) > 2 else ""
        wave = measured = None
        problem = unreadable
        try:
            if path is None and paths[0] is not None:
                problem = f"{paths[0]}: has no counterpart in {root}"
            elif path is not None and paths[0] is None:
                problem = f"{path}: has no counterpart in {roots[0]}"
            elif path is not None and waves[0] is not None:
                wave = read_mono(path, config)
                measured = distance(waves[0], wave, config)
        except GominError as error:
            problem = str(error)
        waves.append(wave)
        is_missing = path is None and paths[0] is None
        comparisons.append(None if is_missing else Comparison(name, measured, problem, version))
    return Versions(name, paths, tuple(waves), tuple(comparisons))


def mean(distances: Sequence[Distance]) -> Distance:
    """The mean of each measure; at least one distance."""
    columns = zip(*(astuple(distance) for distance in distances), strict=True)
    return Distance(*(sum(column) / len(distances) for column in columns))


def by_version(comparisons: Sequence[Comparison]) -> dict[str, list[Distance]]:
    """The distances of each version that has any."""
    found: dict[str, list[Distance]] = {}
    for comparison in comparisons:
        if comparison.distance is not None:
            found.setdefault(comparison.version, []).append(comparison.distance)
    return found


def table(comparisons: Sequence[Comparison]) -> str:
    """One line per comparison, and the mean of each version that has several."""
    means = [
        Comparison("mean", mean(distances), version=version)
        for version, distances in by_version(comparisons).items()
        if len(distances) > 1
    ]
    lines = [*comparisons, *means]
    width = max([4, *(len(line.label) for line in lines)])
    rows = [f"{line.label:<{width}}  {'failed' if line.distance is None else _row(line.distance)}" for line in lines]
    return "\n".join([f"{'':<{width}}  mel L1 dB  spec. conv.  log mag. L1   SNR dB  seconds", *rows])


def _row(distance: Distance) -> str:
    return (
        f"{distance.log_mel_l1_db:9.2f}  {distance.spectral_convergence:11.3f}  {distance.log_magnitude_l1:11.3f}  "
        f"{distance.snr_db:7.1f}  {distance.seconds:7.2f}"
    )


def _magnitudes(wave: NDArray[np.float64], n_fft: int, hop_length: int, win_length: int) -> NDArray[np.float64]:
    """(samples,) → (1 + samples // hop_length, n_fft // 2 + 1): frames centred on every hop, zeros at both ends."""
    padded = np.pad(wave, n_fft // 2)
    magnitudes = np.empty((1 + len(wave) // hop_length, n_fft // 2 + 1))
    for part, spectrum in stft_blocks(padded, centred(hann(win_length), n_fft), hop_length):
        magnitudes[part] = np.abs(spectrum)
    return magnitudes
