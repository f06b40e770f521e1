"""Chains of a diffusion model, measured over recordings: their speed, and their distances.

Every chain starts from the same noise field, so that its result can be compared with that of the full chain. Distances
to the recordings alone reward short chains, whose results are too smooth.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from gomin_client.batch.inputs import STREAM, find_sources
from gomin_client.errors import FileError, UsageError
from gomin_client.files.atomic import atomic_write
from gomin_client.files.formats import AUDIO
from gomin_client.inference.pinned import PinnedModel
from gomin_client.mel.features import Mel, MelConfig, Wave, mel_spectrogram
from gomin_client.sampling import registry
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.tools.compare import distance, read_mono

FULL_SAMPLER = "ddpm"  # its chain over all timesteps is the one that others are compared with
DEFAULT_STEPS = (5, 10, 15, 20, 25)
DEFAULT_ETAS = (0.0,)

# (mel (n_mels, frames), chain) -> audio (hop_length · frames,), and the seconds from the first request to the last
# answer
Synthesize = Callable[[Mel, SamplerSettings], tuple[Wave, float]]


@dataclass(frozen=True)
class Recording:
    """A recording to measure on.

    Attributes:
        path: its file.
        sha256: SHA-256 of the file, by which measurements recognize it wherever it is.
    """

    path: Path
    sha256: str


@dataclass(frozen=True)
class Measurement:
    """One chain on one recording.

    Attributes:
        chain: the chain, with its number of steps.
        recording: name of the recording's file.
        sha256: SHA-256 of that file.
        audio_s: duration of the recording, in seconds.
        elapsed_s: seconds from the first request to the last answer.
        log_mel_l1_db: mel distance between result and recording, in dB.
        log_magnitude_l1: multi-resolution STFT distance between the two.
        to_full_db: mel distance between the result and that of the full chain, in dB.
    """

    chain: SamplerSettings
    recording: str
    sha256: str
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
        values = {**given, "chain": SamplerSettings.from_parameters(dict(given["chain"]))}
        for field in fields(cls):
            value = values[field.name]
            if field.type == "float" and not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name} {value!r}: expected a number, 0 or more")
        if not (values["audio_s"] and values["elapsed_s"]):
            raise ValueError("audio_s, elapsed_s: expected more than 0")
        return cls(**values)


def find_recordings(inputs: Sequence[str]) -> list[Recording]:
    """The recordings that arguments stand for; of files with the same content, the first.

    Raises:
        UsageError: see `find_sources`; or standard input.
        FileError: a file or folder cannot be read.
    """
    sources = find_sources(inputs, (AUDIO,))
    if sources.problems:
        raise FileError(sources.problems[0])
    found: dict[str, Recording] = {}
    for source in sources.sources:
        if source.path == STREAM:
            raise UsageError("standard input (-) can be read only once: give files or a folder")
        try:
            with source.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise FileError(f"{source.path}: cannot be read: {error.strerror or error}") from error
        found.setdefault(digest, Recording(source.path, digest))
    return list(found.values())


def grid(
    samplers: Sequence[str] | None,
    steps: Sequence[int] | None,
    etas: Sequence[float] | None,
    schedule: str,
    num_diffusion_steps: int,
    timesteps: Sequence[str] = (),
    searched: Sequence[int] = (),
) -> list[SamplerSettings]:
    """The chains of a grid, the full one first, without those that a sampler does not have.

    Args:
        samplers: names of samplers; None for all that the model can take, but that of the full chain.
        steps: numbers of steps; samplers with a fixed number have that number. None for `DEFAULT_STEPS`.
        etas: shares of fresh noise, of samplers that have an eta. None for `DEFAULT_ETAS`.
        schedule: the noise schedule that the denoiser was trained with.
        num_diffusion_steps: timesteps that the denoiser was trained with.
        timesteps: of more chains, of samplers that take explicit timesteps: see `SamplerSettings`.
        searched: more numbers of steps, those of searches.

    Raises:
        UsageError: an unknown sampler, or a value that no sampler of the grid takes.
    """
    refused: dict[str, str] = {}  # value that was asked for → why the first sampler does not take it
    taken: set[str] = set()

    def accepted(name: str, sampler: str, values: Iterable[Any], *, asked: bool) -> list[dict[str, Any]]:
        """Those values of one setting that the sampler takes, as settings."""
        settings = []
        for value in values:
            try:
                SamplerSettings(sampler, schedule=schedule, **{name: value}).resolved(num_diffusion_steps)
            except ValueError as error:
                if asked:
                    refused.setdefault(f"{name} {value}", str(error))
            else:
                taken.add(f"{name} {value}")
                settings.append({name: value})
        return settings

    def resolved(sampler: str, **settings: Any) -> SamplerSettings:
        try:
            return SamplerSettings(sampler, schedule=schedule, **settings).resolved(num_diffusion_steps)
        except ValueError as error:
            raise UsageError(str(error)) from error

    chains = [resolved(FULL_SAMPLER)]
    for sampler in samplers or [name for name in registry.SAMPLERS if name != FULL_SAMPLER]:
        numbers = [
            *accepted("steps", sampler, steps or DEFAULT_STEPS, asked=steps is not None),
            *accepted("steps", sampler, searched, asked=True),
        ]
        # no sampler of a default grid is there because of its name: those that take no timesteps are no mistake
        may_take = samplers is not None or registry.takes(sampler, "timesteps")
        explicit = accepted("timesteps", sampler, timesteps if may_take else (), asked=True)
        # always sent: a request without eta gets that of the model's default chain, if that has the same sampler
        shares = accepted("eta", sampler, etas or DEFAULT_ETAS, asked=etas is not None)
        choices = itertools.product([*(numbers or [{}]), *explicit], shares or [{}])
        try:
            chains += [resolved(sampler, **number, **share) for number, share in choices]
        except UsageError:  # of a model with few timesteps, fast has none
            if samplers is not None:
                raise
    for value, why in refused.items():
        if value not in taken:
            raise UsageError(f"{value}: no sampler of the grid takes it: {why}")
    return list(dict.fromkeys(chains))


class MeasurementsFile:
    """Measurements as JSON Lines, so that an interrupted calibration continues and a repeated one agrees."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        """Read what is there.

        Args:
            path: the file, which need not exist.
            about: what the measurements depend on: model, version, server, seed; the file's first line.

        Raises:
            FileError: the file contains something else, or measurements of another model.
        """
        self.path = path
        self._about = about
        self._measurements: dict[tuple[SamplerSettings, str], Measurement] = {}
        try:
            if not path.exists():
                return
            first, *lines = path.read_text(encoding="utf-8").splitlines()
            known = json.loads(first)
            for line in lines:
                self._keep(Measurement.from_dict(json.loads(line)))
            differing = sorted(name for name in {*known, *about} if known.get(name) != about.get(name))
        except OSError as error:
            raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FileError(f"{path}: is not a measurements file of gomin-client calibrate: {error}") from error
        if differing:
            raise FileError(
                f"{path}: has measurements with another {', '.join(differing)}: choose another file with --measurements"
            )

    def add(self, measurement: Measurement) -> None:
        """Add one; the file is replaced as a whole.

        Raises:
            FileError: it cannot be written.
        """
        self._keep(measurement)
        lines = [self._about, *(one.to_dict() for one in self._measurements.values())]
        text = "".join(f"{json.dumps(line)}\n" for line in lines)  # ASCII: names of files need not be text
        with atomic_write(self.path) as part:
            part.write_text(text, encoding="utf-8")

    def _keep(self, measurement: Measurement) -> None:
        self._measurements[measurement.chain, measurement.sha256] = measurement

    def missing(self, chains: Sequence[SamplerSettings], recording: Recording) -> list[SamplerSettings]:
        """The chains that were not measured on a recording."""
        return [chain for chain in chains if (chain, recording.sha256) not in self._measurements]

    def measured(self, chains: Sequence[SamplerSettings], recordings: Sequence[Recording]) -> list[Measurement]:
        """The measurements of these chains on these recordings; the file may have others."""
        wanted = itertools.product(chains, (recording.sha256 for recording in recordings))
        return [self._measurements[key] for key in wanted if key in self._measurements]


def synthesizer(model: PinnedModel, seed: int, window: int | None) -> Synthesize:
    """A function that makes audio with any chain of a diffusion model, from one noise field.

    Args:
        model: the model.
        seed: of the noise field.
        window: number of mel frames in one request; None for the default of each chain.
    """

    def synthesize(mel: Mel, chain: SamplerSettings) -> tuple[Wave, float]:
        with_chain = model.with_chain(chain, window)
        begin = time.perf_counter()
        parts = list(with_chain.vocoded([mel[np.newaxis]], seed))
        return np.concatenate(parts, axis=-1)[0], time.perf_counter() - begin

    return synthesize


@dataclass(frozen=True)
class _Reference:
    """What the chains are compared with on one recording.

    Attributes:
        wave: (samples,) the recording.
        mel: its mel, (n_mels, frames).
        full: (samples,) the result of the full chain.
        full_s: seconds that it took.
    """

    wave: Wave
    mel: Mel
    full: Wave
    full_s: float


class Meter:
    """Measures chains on recordings, and adds the measurements to their file."""

    def __init__(
        self,
        recordings: Sequence[Recording],
        full: SamplerSettings,
        config: MelConfig,
        synthesize: Synthesize,
        file: MeasurementsFile,
        *,
        keep_references: bool = False,
    ) -> None:
        """Prepare to measure.

        Args:
            recordings: at least one.
            full: the full chain.
            config: the model's mel settings.
            synthesize: makes the audio of a mel with a chain, from one noise field for all chains.
            file: the measurements so far.
            keep_references: keep the full chain's results in memory for further calls of `measure`.
        """
        self.recordings = recordings
        self.file = file
        self._full = full
        self._config = config
        self._synthesize = synthesize
        self._kept: dict[str, _Reference] | None = {} if keep_references else None

    def measure(self, chains: Sequence[SamplerSettings]) -> Iterator[Measurement]:
        """Measure what the file lacks of these chains; yields each measurement once it is in the file.

        Raises:
            FileError: a recording cannot be read, or the measurements cannot be written.
        """
        for recording in self.recordings:
            missing = self.file.missing(chains, recording)
            if not missing:
                continue
            reference = self._reference(recording, min(chains, key=lambda chain: chain.steps or 0))
            for chain in missing:
                measurement = self._measure(recording, reference, chain)
                self.file.add(measurement)
                yield measurement

    def _reference(self, recording: Recording, shortest: SamplerSettings) -> _Reference:
        if self._kept is not None and recording.sha256 in self._kept:
            return self._kept[recording.sha256]
        wave = read_mono(recording.path, self._config)
        mel = mel_spectrogram(wave, self._config)
        self._synthesize(mel, shortest)  # the first call with a new length may be slow
        reference = _Reference(wave, mel, *self._made(mel, self._full, len(wave)))
        if self._kept is not None:
            self._kept[recording.sha256] = reference
        return reference

    def _measure(self, recording: Recording, reference: _Reference, chain: SamplerSettings) -> Measurement:
        wave, full, config = reference.wave, reference.full, self._config
        made, elapsed_s = full, reference.full_s
        if chain != self._full:
            made, elapsed_s = self._made(reference.mel, chain, len(wave))
        to_recording = distance(wave, made, config)
        return Measurement(
            chain,
            recording.path.name,
            recording.sha256,
            len(wave) / config.sample_rate,
            elapsed_s,
            to_recording.log_mel_l1_db,
            to_recording.log_magnitude_l1,
            distance(full, made, config).log_mel_l1_db,
        )

    def _made(self, mel: Mel, chain: SamplerSettings, samples: int) -> tuple[Wave, float]:
        """The audio of a mel, (samples,), and the seconds that it took."""
        made, elapsed_s = self._synthesize(mel, chain)
        return made[:samples], elapsed_s
