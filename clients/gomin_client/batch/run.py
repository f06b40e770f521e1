"""Many files through one vocoder: several in flight, and a bad file does not stop the rest.

Worker threads read, compute and write, block by block: memory does not grow with a file. The calling thread reports,
and hears of interrupts. Whatever happens, a file is complete or not there.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gomin_client.batch import plot
from gomin_client.batch.outputs import ANALYZE, STREAM, SYNTHESIZE, Job
from gomin_client.errors import FileError, GominError, ServerError
from gomin_client.files import atomic, audio, stdio
from gomin_client.files import mels as mel_files
from gomin_client.mel import resampling
from gomin_client.mel.features import Mel, MelConfig, Wave, mel_blocks
from gomin_client.mel.scales import Reading, to_gomin
from gomin_client.vocoder import Vocoder

ABANDON_S = 1.0  # after an interrupt

Block = TypeVar("Block")

DONE, SKIPPED, FAILED, NOT_TRIED = "done", "skipped", "failed", "not tried"


@dataclass(frozen=True)
class Settings:
    """How files are made.

    Attributes:
        trim: see `Vocoder.reconstruct`.
        seed: see `Vocoder.synthesize`.
        reading: how mel files are taken.
        all_channels: keep every channel; otherwise they are mixed down to one, as GOMIN's own program does.
        subtype: see `audio.write`.
        extension: format of what is written to standard output.
        keep_waves: collect `Outcome.comparison`.
        skip_existing: leave out files whose output is there.
        jobs: files that are worked on at a time.
        live: read standard input and write standard output while they are still being made.
        first_window: see `Vocoder.stream`.
        comment: kept in audio files, where their format has a place for it.
    """

    trim: bool = True
    seed: int | None = None
    reading: Reading = field(default_factory=Reading)
    all_channels: bool = False
    subtype: str | None = None
    extension: str = ".wav"
    keep_waves: bool = False
    skip_existing: bool = False
    jobs: int = 1
    live: bool = False
    first_window: int | None = None
    comment: str = ""


@dataclass
class Outcome:
    """What became of one file.

    Attributes:
        job: what was to be done.
        status: `DONE`, `SKIPPED`, `FAILED` or `NOT_TRIED`.
        seconds: of audio.
        elapsed: seconds that it took.
        error: what went wrong.
        warning: what was odd about the input.
        comparison: original and reconstruction, where they were asked for.
    """

    job: Job
    status: str = NOT_TRIED
    seconds: float = 0.0
    elapsed: float = 0.0
    error: GominError | None = None
    warning: str = ""
    comparison: plot.Comparison | None = None

    @property
    def reason(self) -> str:
        """What went wrong, in words that name the file; empty if nothing did."""
        if self.error is None:
            return ""
        message = re.sub(r"\S*/gomin-\w+/stdin\.\w+", "standard input", str(self.error))
        if self.job.source == STREAM:
            return message
        named = any(str(path) in message for path in (self.job.source, self.job.target))
        return message if named else f"{self.job.source}: {message}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "input": str(self.job.source),
            "output": str(self.job.target),
            "task": self.job.task,
            "status": self.status,
            "audio_seconds": round(self.seconds, 4),
            "elapsed_seconds": round(self.elapsed, 4),
            **({"error": str(self.error)} if self.error else {}),
            **({"warning": self.warning} if self.warning else {}),
        }


class _AbortedError(Exception):
    """An interrupt wants no more of a file."""


def run_jobs(
    jobs: Sequence[Job],
    vocoder: Vocoder | None,
    config: MelConfig,
    settings: Settings,
    report: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Make files.

    Args:
        jobs: what to do.
        vocoder: the model; None where nothing is vocoded.
        config: settings of mels.
        settings: how.
        report: called with each file's outcome as soon as it is known, in whatever order that is.

    Returns:
        One outcome for each job, in the order of the jobs. If the server went away, the error of one of them is a
        `ServerError`, and what had not been begun is `NOT_TRIED`.
    """
    outcomes = [Outcome(job) for job in jobs]
    waiting: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    for outcome in outcomes:
        if settings.skip_existing and outcome.job.target != STREAM and os.path.exists(outcome.job.target):
            outcome.status = SKIPPED
            report(outcome)
        else:
            waiting.put(outcome)
    finished: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()
    stop, abort = threading.Event(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                outcome = waiting.get_nowait()
            except queue.Empty:
                break
            try:
                _make(outcome, vocoder, config, settings, abort)
                finished.put(outcome)
            except BaseException as defect:  # not for a thread to print and forget
                finished.put(defect)
        finished.put(None)

    # daemons: an interrupt ends the program, whatever they wait for
    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(settings.jobs, waiting.qsize()))]
    for worker in workers:
        worker.start()
    defect: BaseException | None = None
    running = len(workers)
    try:
        while running:
            result = finished.get()
            if result is None:
                running -= 1
            elif isinstance(result, BaseException):
                defect = result
                stop.set()
            else:
                report(result)
                if isinstance(result.error, ServerError):
                    stop.set()
    except BaseException:
        stop.set()
        abort.set()
        _abandon(workers)
        raise
    if defect is not None:  # after what others had begun has been made
        raise defect
    return outcomes


def _abandon(workers: Sequence[threading.Thread]) -> None:
    """End with no unfinished files. Workers see to theirs between two blocks; those that wait for a server do not."""
    give_up_at = time.monotonic() + ABANDON_S
    for worker in workers:
        worker.join(max(0.0, give_up_at - time.monotonic()))
    atomic.discard_unfinished()


def _make(
    outcome: Outcome, vocoder: Vocoder | None, config: MelConfig, settings: Settings, abort: threading.Event
) -> None:
    """Do one job; errors become part of the outcome."""
    started = time.perf_counter()
    try:
        with ExitStack() as stack:
            _compute(stack, outcome, vocoder, config, settings, abort)
        outcome.status = DONE
    except GominError as error:
        outcome.error = error
        outcome.status = FAILED
    except MemoryError:
        outcome.error = FileError(f"{outcome.job.source}: is too long for this machine's memory")
        outcome.status = FAILED
    outcome.elapsed = time.perf_counter() - started


def _compute(
    stack: ExitStack,
    outcome: Outcome,
    vocoder: Vocoder | None,
    config: MelConfig,
    settings: Settings,
    abort: threading.Event,
) -> None:
    """Read, compute and write, block by block."""
    job = outcome.job

    def unless_aborted(blocks: Iterable[Block]) -> Iterator[Block]:
        for block in blocks:
            if abort.is_set():
                raise _AbortedError
            yield block

    def write(waves: Iterable[Wave]) -> None:
        if settings.live:
            samples = stdio.write_stream(
                unless_aborted(waves), config.sample_rate, settings.extension, settings.subtype
            )
        else:
            target = stack.enter_context(_target(job, settings.extension))
            samples = audio.write_blocks(
                target, unless_aborted(waves), config.sample_rate, settings.subtype, settings.comment
            )
        outcome.seconds = samples / config.sample_rate

    if job.task == SYNTHESIZE:
        assert vocoder is not None  # the command line opens one for this task
        mels, beyond_doubt = _mels(stack, job, vocoder, settings)
        write(vocoder.stream(mels, settings.seed, first_window=settings.first_window, force=beyond_doubt))
        return
    live = settings.live and job.source == STREAM
    reader = stack.enter_context(audio.AudioReader(0 if live else _source(stack, job)))
    recorded = reader.blocks(stdio.STREAM_SAMPLES if live else audio.BLOCK)
    mixed = recorded if settings.all_channels else map(audio.mix, recorded)
    waves = unless_aborted(resampling.resample_blocks(mixed, reader.rate, config.sample_rate))
    if job.task == ANALYZE:
        target = stack.enter_context(_target(job, settings.extension))
        waves, seconds = _timed(waves, config.sample_rate)
        mel_files.write_blocks(target, mel_blocks(waves, config), config)
        outcome.seconds = seconds()
    else:
        assert vocoder is not None
        originals: list[Wave] = []
        results: list[Wave] = []
        if settings.keep_waves:
            waves = _kept(waves, originals)
        made = vocoder.reconstruct_stream(
            waves, config.sample_rate, trim=settings.trim, seed=settings.seed, first_window=settings.first_window
        )
        write(_kept(made, results) if settings.keep_waves else made)
        if settings.keep_waves:
            original, result = (np.concatenate([wave[0] for wave in kept]) for kept in (originals, results))
            outcome.comparison = plot.compare(job.source.stem, original, result, config)
    outcome.warning = reader.warning


def _mels(stack: ExitStack, job: Job, vocoder: Vocoder, settings: Settings) -> tuple[Iterator[Mel], bool]:
    """The mel of a file, checked as a whole before any of it is vocoded; or of a stream, to be checked as it comes."""
    reading, config = settings.reading, vocoder.contract.mel

    def converted(blocks: Iterable[Mel]) -> Iterator[Mel]:
        for block in blocks:
            yield to_gomin(block, reading.convention, config, stft_normalized=reading.stft_normalized)

    if settings.live and job.source == STREAM:
        return converted(stdio.mel_stream(config.n_mels)), reading.force
    loaded = mel_files.read(_source(stack, job), transpose=reading.transpose)
    if loaded.config is not None:
        vocoder.contract.check_mel(vocoder.model, loaded.config)
    vocoder.check_mels(converted(loaded.blocks()), force=reading.force)
    return converted(loaded.blocks()), True


def _timed(waves: Iterable[Wave], rate: int) -> tuple[Iterator[Wave], Callable[[], float]]:
    """The same blocks, and what tells how many seconds have gone by."""
    samples = 0

    def counted() -> Iterator[Wave]:
        nonlocal samples
        for wave in waves:
            samples += wave.shape[-1]
            yield wave

    return counted(), lambda: samples / rate


def _kept(waves: Iterable[Wave], into: list[Wave]) -> Iterator[Wave]:
    for wave in waves:
        into.append(wave)
        yield wave


def _source(stack: ExitStack, job: Job) -> Path:
    return stack.enter_context(stdio.stdin_as_file()) if job.source == STREAM else job.source


def _target(job: Job, extension: str) -> AbstractContextManager[Path]:
    return stdio.stdout_as_file(extension) if job.target == STREAM else nullcontext(job.target)
