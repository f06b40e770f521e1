"""Chains of a diffusion model on a server, measured over recordings: their speed, and their distances.

Every chain starts from the same noise field, so that its result can be compared with that of the full chain. Distances
to the recordings alone reward short chains, whose results are too smooth.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gomin_client.errors import FileError, UsageError
from gomin_client.files.atomic import atomic_write
from gomin_client.mel.features import MelConfig, Wave
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.tools.compare import distance, read_mono

FULL = SamplerSettings("ddpm")  # the chain over all timesteps, that others are compared with

# (wave (samples,), chain) -> audio (samples,), and the seconds that the server took for it
Reconstruct = Callable[[Wave, SamplerSettings], tuple[Wave, float]]


@dataclass(frozen=True)
class Measurement:
    """One chain on one recording.

    Attributes:
        chain: the chain, with its number of steps.
        recording: name of the recording.
        audio_s: its duration, in seconds.
        elapsed_s: seconds that the server took.
        log_mel_l1_db: mel distance between result and recording, in dB.
        log_magnitude_l1: multi-resolution STFT distance between the two.
        to_full_db: mel distance between the result and that of the full chain, in dB.
    """

    chain: SamplerSettings
    recording: str
    audio_s: float
    elapsed_s: float
    log_mel_l1_db: float
    log_magnitude_l1: float
    to_full_db: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "chain": self.chain.to_parameters()}

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Measurement:
        """Back from JSON.

        Raises:
            ValueError, TypeError, KeyError: a property is missing, unknown or of the wrong type.
        """
        return cls(**{**given, "chain": SamplerSettings.from_parameters(dict(given["chain"]))})


@dataclass(frozen=True)
class ChainResult:
    """One chain over all recordings: the means of its distances, weighted by duration, and its speed.

    Attributes:
        chain: the chain, with its number of steps.
        times_real_time: seconds of audio made per second.
        log_mel_l1_db, log_magnitude_l1, to_full_db: see `Measurement`.
        is_optimal: whether no other chain is at least as fast and as near to the full chain, and better in one.
    """

    chain: SamplerSettings
    times_real_time: float
    log_mel_l1_db: float
    log_magnitude_l1: float
    to_full_db: float
    is_optimal: bool = False


def grid(
    samplers: Sequence[str], steps: Sequence[int], etas: Sequence[float], num_diffusion_steps: int
) -> list[SamplerSettings]:
    """The chains of a grid, the full one first, without those that a sampler does not have.

    Args:
        samplers: names of samplers.
        steps: numbers of steps; of samplers with a fixed number, that number is taken.
        etas: shares of fresh noise, of samplers that have an eta.
        num_diffusion_steps: timesteps that the denoiser was trained with.

    Raises:
        UsageError: an unknown sampler, or a value that no sampler of the grid takes.
    """
    chains = [FULL.resolved(num_diffusion_steps)]
    refusal: dict[str, str] = {}  # value → why the last sampler that was tried does not take it
    taken: set[str] = set()
    for sampler in samplers:
        of_sampler: list[SamplerSettings] = []
        numbers: Sequence[int | None] = steps or (None,)
        for number, eta in itertools.product(numbers, (None, *etas)):
            values = {f"steps {number}": number, f"eta {eta}": eta}
            given = {name for name, value in values.items() if value is not None}
            try:
                of_sampler.append(SamplerSettings(sampler, number, eta=eta).resolved(num_diffusion_steps))
                taken |= given
            except ValueError as error:
                refusal |= dict.fromkeys(given, str(error))
        if not of_sampler:  # it has a number of steps of its own
            try:
                of_sampler = [SamplerSettings(sampler).resolved(num_diffusion_steps)]
            except ValueError as error:
                raise UsageError(str(error)) from error
        chains += of_sampler
    for value, why in refusal.items():
        if value not in taken:
            raise UsageError(f"{value}: no sampler of the grid takes it: {why}")
    return list(dict.fromkeys(chains))


class ResultsFile:
    """Measurements in a file of JSON lines, so that an interrupted calibration continues and a repeated one agrees."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        """Read what is there.

        Args:
            path: the file, which need not exist.
            about: what the measurements depend on: model, version, server, seed; the file's first line.

        Raises:
            FileError: the file holds something else, or measurements of another model.
        """
        self._path = path
        self._about = about
        self.measurements: list[Measurement] = []
        if not path.exists():
            return
        try:
            first, *lines = path.read_text(encoding="utf-8").splitlines()
            known = json.loads(first)
            self.measurements = [Measurement.from_dict(json.loads(line)) for line in lines]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise FileError(f"{path}: is not a results file of gomin-client calibrate: {error}") from error
        if known != about:
            differing = sorted(name for name in {*known, *about} if known.get(name) != about.get(name))
            raise FileError(f"{path}: has measurements with another {', '.join(differing)}: choose another file")

    def add(self, measurement: Measurement) -> None:
        """Append one; the file is replaced as a whole.

        Raises:
            FileError: it cannot be written.
        """
        self.measurements.append(measurement)
        lines = [self._about, *(one.to_dict() for one in self.measurements)]
        with atomic_write(self._path) as part:
            part.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines), encoding="utf-8")

    def has(self, chain: SamplerSettings, recording: str) -> bool:
        """Whether this chain was measured on this recording."""
        return any(one.chain == chain and one.recording == recording for one in self.measurements)


def measure(
    recordings: Sequence[tuple[str, Path]],
    chains: Sequence[SamplerSettings],
    config: MelConfig,
    reconstruct: Reconstruct,
    results: ResultsFile,
) -> Iterator[Measurement]:
    """Measure what the results file lacks; yields each measurement once it is in the file.

    Args:
        recordings: name and path of each.
        chains: the full chain first.
        config: the model's mel settings.
        reconstruct: makes the audio of a recording by a chain, from one noise field for all chains.
        results: the file.

    Raises:
        FileError: a recording cannot be read, or the results cannot be written.
    """
    for name, path in recordings:
        missing = [chain for chain in chains if not results.has(chain, name)]
        if not missing:
            continue
        wave = read_mono(path, config)
        full, full_s = reconstruct(wave, chains[0])
        for chain in missing:
            made, elapsed_s = (full, full_s) if chain == chains[0] else reconstruct(wave, chain)
            to_recording = distance(wave, made, config)
            measurement = Measurement(
                chain,
                name,
                len(wave) / config.sample_rate,
                elapsed_s,
                to_recording.log_mel_l1_db,
                to_recording.log_magnitude_l1,
                distance(full, made, config).log_mel_l1_db,
            )
            results.add(measurement)
            yield measurement


def timed(make: Callable[[], Wave]) -> tuple[Wave, float]:
    """What a function returns, and the seconds that it took."""
    begin = time.perf_counter()
    made = make()
    return made, time.perf_counter() - begin


def summarize(measurements: Sequence[Measurement]) -> list[ChainResult]:
    """One result for each chain, by number of steps, sampler and eta."""
    by_chain: dict[SamplerSettings, list[Measurement]] = {}
    for one in measurements:
        by_chain.setdefault(one.chain, []).append(one)
    results = [
        _summary(chain, of_chain) for chain, of_chain in sorted(by_chain.items(), key=lambda item: _order(item[0]))
    ]
    return [
        ChainResult(**{**vars(one), "is_optimal": not any(_dominates(other, one) for other in results)})
        for one in results
    ]


def fastest_enough(results: Sequence[ChainResult], target: float) -> ChainResult:
    """The chain nearest to the full one among those that make at least `target` seconds of audio per second.

    Raises:
        UsageError: none is that fast.
    """
    fast = [one for one in results if one.times_real_time >= target]
    if not fast:
        most = max(results, key=lambda one: one.times_real_time)
        raise UsageError(
            f"--rtf-target {target:g}: no chain is that fast; {name_of(most.chain)} makes {most.times_real_time:.2f} "
            "seconds of audio per second: take fewer steps into the grid"
        )
    return min(fast, key=lambda one: (one.to_full_db, _order(one.chain)))


def shortest_within(results: Sequence[ChainResult], share: float) -> ChainResult:
    """The chain of fewest steps whose distance to the full chain is at most a share of that chain's to the recordings.

    Args:
        results: of all chains, the full one among them, which always qualifies.
        share: for example 0.05.
    """
    full = next(one for one in results if one.to_full_db == 0 and one.chain.sampler == FULL.sampler)
    near = [one for one in results if one.to_full_db <= share * full.log_mel_l1_db]
    return min(near, key=lambda one: (one.chain.steps, one.to_full_db, _order(one.chain)))


def name_of(chain: SamplerSettings) -> str:
    """The chain in a few words: "ddim, 10 steps, eta 0.5"."""
    eta = "" if chain.eta is None else f", eta {chain.eta:g}"
    return f"{chain.sampler}, {chain.steps} steps{eta}"


def _order(chain: SamplerSettings) -> tuple[int, str, float]:
    return chain.steps or 0, chain.sampler or "", -1.0 if chain.eta is None else chain.eta


def _summary(chain: SamplerSettings, measurements: Sequence[Measurement]) -> ChainResult:
    audio_s = sum(one.audio_s for one in measurements)

    def mean(name: str) -> float:
        return float(sum(one.audio_s * getattr(one, name) for one in measurements) / audio_s)

    speed = audio_s / sum(one.elapsed_s for one in measurements)
    return ChainResult(chain, speed, mean("log_mel_l1_db"), mean("log_magnitude_l1"), mean("to_full_db"))


def _dominates(one: ChainResult, other: ChainResult) -> bool:
    """Whether one chain is as fast and as near to the full chain as another, and better in one of the two."""
    mine, theirs = ((-each.times_real_time, each.to_full_db) for each in (one, other))
    return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))
