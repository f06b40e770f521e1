"""The three tasks: analyze, synthesize and reconstruct one file, block by block.

Memory does not grow with a file, except for mels in formats that have to be held whole (.npz, .pt). An output is
complete or not there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gomin_client.batch import plot
from gomin_client.batch.inputs import STREAM
from gomin_client.batch.outputs import ANALYZE, RECONSTRUCT, SYNTHESIZE, FileJob
from gomin_client.batch.plot import PlotColumn
from gomin_client.batch.shards import Shard
from gomin_client.files import audio, stdio
from gomin_client.files import mels as mel_files
from gomin_client.inference.steps import ChainStep, SteppedModel
from gomin_client.inference.stream import Tally, trimmed
from gomin_client.mel.features import MelBatch, MelConfig, Wave, mel_blocks
from gomin_client.mel.resampling import resample, resample_blocks
from gomin_client.mel.scales import MelReading, to_gomin

Block = TypeVar("Block")
Progress = Callable[[float, float | None], None]

_drawing = threading.Lock()  # matplotlib is not made for several threads


@dataclass(frozen=True)
class Steps:
    """How the chains of a diffusion model are followed, step by step.

    Attributes:
        stop_after: the step whose prediction is kept, and that ends the chain; None for the last one.
        report: whether each step is reported where no progress bar shows it.
    """

    stop_after: int | None = None
    report: bool = False


@dataclass(frozen=True)
class BatchSettings:
    """What to do with files.

    Attributes:
        trim: see `Vocoder.reconstruct`.
        seed: see `Vocoder.synthesize`; of all files.
        force: take audio and mels whose values look wrong.
        reading: how the values of mel files are read; None if there are none.
        all_channels: keep every channel; otherwise they are mixed down to one, as in GOMIN's own program.
        subtype: see `audio.write`.
        extension: the format of a result that is written to standard output.
        plot: collect a column of a plot for each reconstruction.
        pictures: output → PNG file, of reconstructions that have a plot of their own, which is not collected.
        skip_existing: skip files whose output exists.
        strict: refuse a batch that leaves out files of the folders that were searched.
        parallel: number of files that are processed at the same time.
        live: read standard input and write standard output while the audio is still being computed.
        shard: the part of the batch to do; None for all of it.
        results: the file to which the result of every file is appended, if any.
        steps: how chains are followed; None if they are not, and long mels are cut into windows.
    """

    trim: bool = True
    seed: int | None = None
    force: bool = False
    reading: MelReading | None = None
    all_channels: bool = False
    subtype: str | None = None
    extension: str = ".wav"
    plot: bool = False
    pictures: Mapping[Path, Path] = field(default_factory=dict)
    skip_existing: bool = False
    strict: bool = False
    parallel: int = 1
    live: bool = False
    shard: Shard | None = None
    results: Path | None = None
    steps: Steps | None = None


@dataclass(frozen=True)
class Made:
    """What a task reports about its file.

    Attributes:
        seconds: duration of the audio, in seconds.
        warning: what is odd about the input; empty if nothing is.
        column: original and reconstruction, if a plot was asked for.
    """

    seconds: float
    warning: str = ""
    column: PlotColumn | None = None


class AbortedError(Exception):
    """The batch was interrupted while a file was being made."""


@dataclass(frozen=True)
class Batch:
    """What all files of a batch have in common.

    Attributes:
        vocoder: the model; None if nothing is vocoded.
        config: the settings of mels.
        settings: what to do with the files.
        progress: called while a file is made, with the seconds of audio that are done, and of the whole recording if
            they are known.
        on_step: called after each step of a chain that is followed, with its number and the number of steps.
        aborted: set when no more blocks are wanted.
    """

    vocoder: SteppedModel | None
    config: MelConfig
    settings: BatchSettings
    progress: Progress = lambda _done, _total: None
    on_step: Callable[[int, int], None] = lambda _step, _steps: None
    aborted: threading.Event = field(default_factory=threading.Event)

    def required_vocoder(self) -> SteppedModel:
        """The model of a task that vocodes."""
        assert self.vocoder is not None  # the command line opens one for these tasks
        return self.vocoder

    def until_aborted(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The blocks, until the batch is aborted.

        Raises:
            AbortedError: it is.
        """
        for block in blocks:
            if self.aborted.is_set():
                raise AbortedError
            yield block

    def is_live(self, job: FileJob) -> bool:
        """Whether the input is read while it is still being written by another program."""
        return self.settings.live and job.source == STREAM

    @contextmanager
    def recording(self, job: FileJob) -> Iterator[audio.AudioReader]:
        """The recording that a job reads."""
        with nullcontext(0) if self.is_live(job) else _source(job) as source, audio.AudioReader(source) as reader:
            yield reader

    def channels(self, job: FileJob, reader: audio.AudioReader) -> Iterable[Wave]:
        """The blocks of a recording, mixed down unless all channels are kept."""
        blocks = reader.blocks(stdio.STREAM_SAMPLES if self.is_live(job) else audio.BLOCK)
        if not self.settings.force:
            blocks = audio.moderate(blocks)
        return self.until_aborted(blocks if self.settings.all_channels else map(audio.mix, blocks))

    def step_followed(self, steps: Steps, mels: Iterable[MelBatch]) -> Iterator[Wave]:
        """Audio of a mel that has been checked, by one chain that is followed; see `SteppedModel.step_followed`.

        Raises:
            AbortedError: the batch is aborted.
        """

        def on_step(step: ChainStep) -> None:
            if self.aborted.is_set():
                raise AbortedError
            self.on_step(step.number, step.steps)

        return self.required_vocoder().step_followed(mels, self.settings.seed, steps.stop_after, on_step)

    def write_audio(self, job: FileJob, waves: Iterable[Wave], expected_s: float | None = None) -> float:
        """Write a job's result, and return its duration in seconds.

        Args:
            job: the job.
            waves: (channels, any number of samples) each.
            expected_s: its duration in seconds, if it is known.
        """
        settings, vocoder, rate = self.settings, self.required_vocoder(), self.config.sample_rate
        written = Tally(self.until_aborted(waves))
        waves = self.followed(written, written, expected_s)
        if settings.live:
            return stdio.write_stream(waves, rate, settings.extension, settings.subtype) / rate
        with _target(job, settings.extension) as target:
            comment = vocoder.comment(settings.seed)
            if settings.steps is not None and settings.steps.stop_after is not None:
                comment += f", stopped after step {settings.steps.stop_after}"
            return audio.write_blocks(target, waves, rate, settings.subtype, comment) / rate

    def followed(self, blocks: Iterable[Block], passed: Tally, expected_s: float | None) -> Iterator[Block]:
        """The blocks; for each, progress is reported, unless the steps of a chain are.

        Args:
            blocks: what is made.
            passed: audio at the model's sample rate, of which as much has passed as is done.
            expected_s: its duration in seconds, if it is known.
        """
        for block in blocks:
            if self.settings.steps is None:
                self.progress(passed.samples / self.config.sample_rate, expected_s)
            yield block


def analyze(job: FileJob, batch: Batch) -> Made:
    """Make a mel file of a recording."""
    config = batch.config
    with batch.recording(job) as reader, _target(job, batch.settings.extension) as target:
        kept = Tally(resample_blocks(batch.channels(job, reader), reader.rate, config.sample_rate))
        mels = batch.followed(mel_blocks(kept, config), kept, reader.seconds)
        mel_files.write_blocks(target, mels, config)
    return Made(kept.samples / config.sample_rate, reader.warning)


def synthesize(job: FileJob, batch: Batch) -> Made:
    """Make audio of a mel file, which is checked as a whole before any of it is vocoded; a stream, as it arrives."""
    vocoder, settings = batch.required_vocoder(), batch.settings
    reading, config = settings.reading or MelReading(), batch.config
    first = vocoder.first_window if settings.live else None

    def vocoded(mels: Iterable[MelBatch], force: bool) -> float:
        blocks = vocoder.checked_blocks(mels, in_part=not force)
        if settings.steps is not None:
            return batch.write_audio(job, batch.step_followed(settings.steps, blocks))
        return batch.write_audio(job, vocoder.vocoded(blocks, settings.seed, first))

    if batch.is_live(job):
        frames = stdio.mel_stream(config.n_mels)
        mels = (
            to_gomin(block, reading.convention, config, stft_normalized=reading.stft_normalized) for block in frames
        )
        return Made(vocoded(mels, settings.force))
    with _source(job) as source:
        loaded = mel_files.read(source, transpose=reading.transpose)
        if loaded.config is not None:
            vocoder.contract.check_mel(vocoder.model, loaded.config)
        vocoder.check_mels(loaded.converted(reading, config), force=settings.force)
        return Made(vocoded(loaded.converted(reading, config), force=True))


def reconstruct(job: FileJob, batch: Batch) -> Made:
    """Make audio of a recording by way of its mel."""
    vocoder, settings = batch.required_vocoder(), batch.settings
    first = vocoder.first_window if settings.live else None
    with batch.recording(job) as reader:
        original = Tally(batch.channels(job, reader), keep=settings.plot)
        if settings.steps is not None:
            resampled = Tally(resample_blocks(original, reader.rate, batch.config.sample_rate))
            waves = batch.step_followed(settings.steps, mel_blocks(resampled, batch.config))
            waves = trimmed(waves, resampled) if settings.trim else waves
        else:
            waves = vocoder.reconstructed(
                original, reader.rate, trim=settings.trim, seed=settings.seed, first_window=first
            )
        made = Tally(waves, keep=settings.plot)
        seconds = batch.write_audio(job, made, reader.seconds)
    column = None
    if settings.plot:
        recorded = resample(original.first_channel(), reader.rate, batch.config.sample_rate)
        column = PlotColumn.of(job.source.stem, (recorded, made.first_channel()), batch.config)
        if picture := settings.pictures.get(job.target):
            with _drawing:
                plot.save(picture, [column], batch.config)
            column = None
    return Made(seconds, reader.warning, column)


TASKS: dict[str, Callable[[FileJob, Batch], Made]] = {
    ANALYZE: analyze,
    SYNTHESIZE: synthesize,
    RECONSTRUCT: reconstruct,
}


def _source(job: FileJob) -> AbstractContextManager[Path]:
    return stdio.stdin_as_file() if job.source == STREAM else nullcontext(job.source)


def _target(job: FileJob, extension: str) -> AbstractContextManager[Path]:
    return stdio.stdout_as_file(extension) if job.target == STREAM else nullcontext(job.target)
