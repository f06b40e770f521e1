"""Many files through one vocoder: several in flight, and a bad file does not stop the rest.

Worker threads read, analyze and vocode; the calling thread writes, and hears of interrupts. So whatever happens, a file
is complete or not there.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client import audio, melfile, plot
from gomin_client.conventions import Reading, to_gomin
from gomin_client.errors import FileError, GominError, ServerError
from gomin_client.mel import MelConfig, mel_spectrogram
from gomin_client.paths import ANALYZE, STREAM, SYNTHESIZE, Job
from gomin_client.vocoder import Vocoder

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
        in_flight: files that are worked on at a time.
    """

    trim: bool = True
    seed: int | None = None
    reading: Reading = field(default_factory=Reading)
    all_channels: bool = False
    subtype: str | None = None
    extension: str = ".wav"
    keep_waves: bool = False
    skip_existing: bool = False
    in_flight: int = 1


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


@dataclass
class _Made:
    """What a worker has ready: how to write it, and how long it is."""

    outcome: Outcome
    write: Callable[[Path], None] = field(default=lambda _: None)


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
    made: queue.Queue[_Made | BaseException | None] = queue.Queue(
        maxsize=settings.in_flight
    )  # what nobody has written yet
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                outcome = waiting.get_nowait()
            except queue.Empty:
                break
            try:
                made.put(_make(outcome, vocoder, config, settings))
            except BaseException as defect:  # not for a thread to print and forget
                made.put(defect)
        made.put(None)

    # daemons: an interrupt ends the program, whatever they wait for
    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(settings.in_flight, waiting.qsize()))]
    for worker in workers:
        worker.start()
    defect: BaseException | None = None
    running = len(workers)
    try:
        while running:
            result = made.get()
            if result is None:
                running -= 1
                continue
            if isinstance(result, BaseException):
                defect = result
                stop.set()
                continue
            _finish(result, settings)
            report(result.outcome)
            if isinstance(result.outcome.error, ServerError):
                stop.set()
    finally:
        stop.set()
    if defect is not None:  # after what others had ready has been written
        raise defect
    return outcomes


def _make(outcome: Outcome, vocoder: Vocoder | None, config: MelConfig, settings: Settings) -> _Made:
    """What a worker does with one job; errors become part of the outcome."""
    started = time.perf_counter()
    result = _Made(outcome)
    try:
        with ExitStack() as stack:
            stream = outcome.job.source == STREAM
            source = stack.enter_context(_from_stdin()) if stream else outcome.job.source
            result.write = _compute(source, outcome, vocoder, config, settings)
    except GominError as error:
        outcome.error = error
    except MemoryError:
        outcome.error = FileError(f"{outcome.job.source}: is too long for this machine's memory")
    outcome.elapsed = time.perf_counter() - started
    return result


def _compute(
    source: Path, outcome: Outcome, vocoder: Vocoder | None, config: MelConfig, settings: Settings
) -> Callable[[Path], None]:
    """Read and compute; returns what writes the result into a file."""
    task = outcome.job.task
    if task == SYNTHESIZE:
        assert vocoder is not None  # the command line opens one for this task
        reading = settings.reading
        loaded = melfile.read(source, transpose=reading.transpose)
        mel = to_gomin(loaded.mel, reading.convention, config, stft_normalized=reading.stft_normalized)
        audible = vocoder.synthesize(mel, settings.seed, mel_config=loaded.config, force=reading.force)
        outcome.seconds = audible.shape[-1] / config.sample_rate
        return lambda target: audio.write(target, audible, config.sample_rate, settings.subtype)
    recording = audio.read(source)
    outcome.warning = recording.warning
    wave = recording.samples if settings.all_channels else recording.mono()
    wave = audio.resample(wave, recording.rate, config.sample_rate)
    outcome.seconds = wave.shape[-1] / config.sample_rate
    if task == ANALYZE:
        mels = _mels(wave, config)
        return lambda target: melfile.write(target, mels, config)
    assert vocoder is not None
    result = vocoder.reconstruct(wave, config.sample_rate, trim=settings.trim, seed=settings.seed)
    if settings.keep_waves:
        outcome.comparison = plot.compare(outcome.job.source.stem, wave[0], result[0], config)
    return lambda target: audio.write(target, result, config.sample_rate, settings.subtype)


def _finish(made: _Made, settings: Settings) -> None:
    """Write what a worker made."""
    outcome = made.outcome
    if outcome.error is None:
        started = time.perf_counter()
        try:
            with ExitStack() as stack:
                stream = outcome.job.target == STREAM
                target = stack.enter_context(_to_stdout(settings.extension)) if stream else outcome.job.target
                made.write(target)
        except GominError as error:
            outcome.error = error
        outcome.elapsed += time.perf_counter() - started
    outcome.status = FAILED if outcome.error else DONE


def _mels(wave: NDArray[np.float32], config: MelConfig) -> NDArray[np.float32]:
    """(channels, samples) -> (channels, n_mels, frames)."""
    if not np.isfinite(wave).all():
        raise FileError("is too loud to be resampled: it overflows")
    return np.stack([mel_spectrogram(channel, config) for channel in wave])


@contextmanager
def _from_stdin() -> Iterator[Path]:
    """Standard input as a file, which audio libraries can seek in; its extension is that of its content."""
    try:
        # not through sys.stdin: an interrupt could not end Python while another thread holds its lock
        content = b"".join(iter(lambda: os.read(0, 1 << 20), b""))
    except OSError as error:
        raise FileError(f"standard input cannot be read: {error.strerror}") from error
    if not content:
        raise FileError("standard input is empty")
    extension = ".npy" if content.startswith(b"\x93NUMPY") else ".npz" if content.startswith(b"PK") else ".wav"
    with tempfile.TemporaryDirectory(prefix="gomin-") as directory:
        path = Path(directory) / f"stdin{extension}"
        path.write_bytes(content)
        yield path


@contextmanager
def _to_stdout(extension: str) -> Iterator[Path]:
    """A file that is copied to standard output once it is complete."""
    with tempfile.TemporaryDirectory(prefix="gomin-") as directory:
        path = Path(directory) / f"stdout{extension}"
        yield path
        if sys.stdout is None:
            raise FileError("standard output is closed")
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
