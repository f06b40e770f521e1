"""Many files through one vocoder: several in flight, and a bad file does not stop the others.

Worker threads make files. The calling thread reports them, and receives interrupts.
"""

from __future__ import annotations

import os
import queue
import re
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gomin_client.batch.inputs import STREAM
from gomin_client.batch.outputs import FileJob
from gomin_client.batch.plot import PlotColumn
from gomin_client.batch.tasks import TASKS, Batch, BatchSettings, Progress
from gomin_client.errors import FileError, GominError, ServerError
from gomin_client.files import atomic
from gomin_client.inference.steps import SteppedModel
from gomin_client.mel.features import MelConfig
from gomin_client.threads import NoThreadError, start_thread

ABORT_S = 1.0  # time that workers get to stop after an interrupt, in seconds

DONE, SKIPPED, FAILED, NOT_TRIED = "done", "skipped", "failed", "not tried"


@dataclass
class Outcome:
    """The result of one job.

    Attributes:
        job: what was to be done.
        status: `DONE`, `SKIPPED`, `FAILED` or `NOT_TRIED`.
        seconds: duration of the audio, in seconds.
        elapsed: time that the job took, in seconds.
        error: why it failed.
        warning: what is odd about the input.
        column: original and reconstruction, if a plot was asked for.
    """

    job: FileJob
    status: str = NOT_TRIED
    seconds: float = 0.0
    elapsed: float = 0.0
    error: GominError | None = None
    warning: str = ""
    column: PlotColumn | None = None

    @property
    def reason(self) -> str:
        """Why it failed, in words that name the file; empty if it did not."""
        if self.error is None:
            return ""
        message = _without_temporary_files(str(self.error))
        if self.job.source == STREAM:
            return message
        named = any(str(path) in message for path in (self.job.source, self.job.target))
        return message if named else f"{self.job.source}: {message}"

    def to_dict(self) -> dict[str, Any]:
        """The outcome for JSON."""
        return {
            "input": str(self.job.source),
            "output": str(self.job.target),
            "task": self.job.task,
            "status": self.status,
            "audio_seconds": round(self.seconds, 4),
            "elapsed_seconds": round(self.elapsed, 4),
            **({"error": _without_temporary_files(str(self.error))} if self.error else {}),
            **({"warning": self.warning} if self.warning else {}),
        }


def _without_temporary_files(message: str) -> str:
    """A message in which the temporary copies of standard input and output have their own names."""
    if "/gomin-" not in message:
        return message
    directory = rf"({re.escape(tempfile.gettempdir())}|\S*)/gomin-\w+"  # it may contain spaces
    message = re.sub(rf"{directory}/stdin(\.\w+)?", "standard input", message)
    return re.sub(rf"{directory}/stdout\.\w+", r"temporary file in \1", message)


def run_jobs(
    jobs: Sequence[FileJob],
    vocoder: SteppedModel | None,
    config: MelConfig,
    settings: BatchSettings,
    report: Callable[[Outcome], None] = lambda _: None,
    progress: Progress = lambda _done, _total: None,
    on_step: Callable[[int, int], None] = lambda _step, _steps: None,
) -> list[Outcome]:
    """Make files.

    Args:
        jobs: what to do.
        vocoder: the model; None if nothing is vocoded.
        config: the settings of mels.
        settings: what to do with the files.
        report: called with each file's outcome as soon as it is known, in any order.
        progress: see `Batch`; called in the threads that make files.
        on_step: see `Batch`; called in these threads too.

    Returns:
        One outcome for each job, in the order of the jobs. If the server went away, the error of one of them is a
        `ServerError`, and jobs that had not begun are `NOT_TRIED`.
    """
    batch = Batch(vocoder, config, settings, progress, on_step)
    outcomes = [Outcome(job) for job in jobs]
    waiting: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    finished: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()
    stop = threading.Event()
    for outcome in outcomes:
        if settings.skip_existing and outcome.job.target != STREAM and os.path.exists(outcome.job.target):
            outcome.status = SKIPPED
            report(outcome)
        else:
            waiting.put(outcome)

    def work() -> None:
        try:
            while not stop.is_set():
                outcome = waiting.get_nowait()
                _attempt(outcome, batch)
                finished.put(outcome)
        except queue.Empty:
            pass
        except BaseException as defect:  # not for a thread to print and forget
            finished.put(defect)
        finally:
            finished.put(None)

    # daemons: an interrupt ends the program, whatever they wait for
    workers: list[threading.Thread] = []
    for _ in range(min(settings.parallel, waiting.qsize())):
        try:
            workers.append(start_thread(work, "gomin-file"))
        except NoThreadError:
            if not workers:
                raise
    try:
        defect = _collect(finished, len(workers), stop, report)
    except BaseException:
        stop.set()
        batch.aborted.set()
        _abandon(workers)
        raise
    if defect is not None:  # after the files that other workers had begun
        raise defect
    return outcomes


def _attempt(outcome: Outcome, batch: Batch) -> None:
    """Do one job; its errors become part of the outcome."""
    started = time.perf_counter()
    job = outcome.job
    try:
        made = TASKS[job.task](job, batch)
        outcome.status = DONE
        outcome.seconds, outcome.column = made.seconds, made.column
        outcome.warning = _without_temporary_files(made.warning)
    except GominError as error:
        outcome.status, outcome.error = FAILED, error
    except MemoryError:
        outcome.status, outcome.error = FAILED, FileError(f"{job.source}: is too long for this machine's memory")
    outcome.elapsed = time.perf_counter() - started


def _collect(
    finished: queue.SimpleQueue[Outcome | BaseException | None],
    running: int,
    stop: threading.Event,
    report: Callable[[Outcome], None],
) -> BaseException | None:
    """Report outcomes until all workers have ended; returns a defect that one of them met."""
    defect: BaseException | None = None
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
    return defect


def _abandon(workers: Sequence[threading.Thread]) -> None:
    """Leave no unfinished files. Workers remove theirs between two blocks, except those that wait for a server."""
    give_up_at = time.monotonic() + ABORT_S
    for worker in workers:
        worker.join(max(0.0, give_up_at - time.monotonic()))
    atomic.discard_unfinished()
