"""What is printed of a batch: a line for each file, a progress bar on a terminal, a summary; or JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from gomin_client.batch.inputs import left_out_files
from gomin_client.batch.outputs import BatchPlan
from gomin_client.batch.run import DONE, FAILED, NOT_TRIED, SKIPPED, Outcome
from gomin_client.cli import console
from gomin_client.cli.console import echo, in_options, visible


class Display:
    """Prints outcomes as they arrive; a context manager around a batch."""

    def __init__(self, total: int, *, quiet: bool, as_json: bool, to_stderr: bool, print_steps: bool = False) -> None:
        """Prepare to print a batch.

        Args:
            total: number of files.
            quiet: print errors and warnings only.
            as_json: print nothing to standard output; the caller prints JSON at the end.
            to_stderr: print to standard error, since the result goes to standard output.
            print_steps: print a line for each step of a chain if there is no progress bar.
        """
        self._total = total
        self._quiet = quiet or as_json
        self._to_stderr = to_stderr
        self._print_steps = print_steps
        self._started = time.perf_counter()
        self._seconds = 0.0
        self._bar: Any = None
        self._task: Any = None
        if not self._quiet and sys.stderr.isatty():
            self._bar, self._task = _bar(total) if total > 1 else _bar_of_one_file()

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def print(self, line: str) -> None:
        """Print an ordinary line, unless the user wants quiet."""
        if self._quiet:
            return
        if self._bar is not None and (self._to_stderr or sys.stdout.isatty()):
            self._print_above_bar(line)
        else:
            echo(line, err=self._to_stderr)

    def print_error(self, line: str) -> None:
        """Print an error or a warning."""
        if self._bar is not None:
            self._print_above_bar(f"gomin-client: {line}")
        else:
            echo(f"gomin-client: {line}", err=True)

    def _print_above_bar(self, line: str) -> None:
        self._bar.console.print(visible(in_options(line)), markup=False, highlight=False, soft_wrap=True)

    def advance(self, done_s: float, expected_s: float | None) -> None:
        """Show how far the only file is; a batch shows the number of files instead.

        Args:
            done_s: seconds of audio that are done.
            expected_s: seconds of the whole recording; None if they are not known.
        """
        if self._bar is None or self._total > 1:
            return
        amount = f"{done_s:.1f} s of audio" if expected_s is None else f"{done_s:.1f} of {expected_s:.1f} s of audio"
        self._bar.update(self._task, completed=done_s, total=expected_s, amount=amount, rate=self._rate(done_s))

    def show_step(self, step: int, steps: int) -> None:
        """Show how far the chain of the only file is.

        Args:
            step: the number of the step that is done, from 1.
            steps: the number of steps.
        """
        if self._bar is not None and self._total == 1:
            self._bar.update(self._task, completed=step, total=steps, amount=f"step {step} of {steps}")
        elif self._print_steps:
            echo(f"step {step} of {steps}", err=True)

    def _rate(self, seconds: float) -> str:
        return f"{seconds / (time.perf_counter() - self._started):.2f} × real time"

    def print_outcome(self, outcome: Outcome) -> None:
        """Print the outcome of one file, and advance the progress bar."""
        job = outcome.job
        if outcome.warning:
            self.print_error(f"warning: {outcome.warning}")
        if outcome.status == FAILED:
            self.print_error(outcome.reason)
        elif outcome.status == SKIPPED:
            self.print(f"{job.source} -> {job.target}  exists, skipped")
        else:
            self._seconds += outcome.seconds
            self.print(f"{job.source} -> {job.target}  {outcome.seconds:.2f} s of audio in {outcome.elapsed:.2f} s")
        if self._bar is not None and self._total > 1:
            self._bar.update(self._task, advance=1, rate=self._rate(self._seconds))

    def print_summary(self, outcomes: Sequence[Outcome], left_out: Sequence[Path] = ()) -> None:
        """Print the totals of a batch.

        Args:
            outcomes: of all its jobs.
            left_out: files that the search for inputs left out.
        """
        counts = count(outcomes)
        failed = counts["failed"]
        if (self._total > 1 or left_out) and (failed or not self._quiet):
            words = [f"{counts['done']} done", f"{failed} failed"]
            words[1:1] = [f"{counts['skipped']} skipped"] if counts["skipped"] else []
            words += [f"{counts['not_tried']} not tried"] if counts["not_tried"] else []
            elapsed = time.perf_counter() - self._started
            rate = f"; {self._seconds:.1f} s of audio in {elapsed:.1f} s, {self._seconds / elapsed:.2f} × real time"
            others = f"; {left_out_files(left_out)}" if left_out else ""
            line = ", ".join(words) + (rate if self._seconds else "") + others
            echo(line, err=failed > 0 or self._to_stderr)
            for outcome in outcomes:
                if outcome.status == FAILED and self._bar is not None:  # the lines above may have scrolled away
                    echo(f"  {outcome.reason}", err=True)


class ProgressBar:
    """A bar of finished recordings on standard error, if that is a terminal; a context manager around the work."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def begin(self, total: int) -> None:
        """Show the bar, unless there is only one recording."""
        if total > 1 and sys.stderr.isatty():
            self._bar, self._task = _bar(total)
            self._bar.start()

    def advance(self) -> None:
        """One more recording is finished."""
        if self._bar is not None:
            self._bar.advance(self._task)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def count(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """The numbers of files that were done, skipped, failed, and not tried."""
    statuses = [outcome.status for outcome in outcomes]
    return {
        "done": statuses.count(DONE),
        "skipped": statuses.count(SKIPPED),
        "failed": statuses.count(FAILED),
        "not_tried": statuses.count(NOT_TRIED),
    }


def to_json(outcomes: Sequence[Outcome], plan: BatchPlan, **facts: Any) -> str:
    """A batch as JSON.

    Args:
        outcomes: of all its jobs.
        plan: what it was to do.
        facts: more entries.
    """
    whole = {
        **facts,
        **count(outcomes),
        "left_out": len(plan.left_out),
        "left_out_extensions": sorted({path.suffix.lower() for path in plan.left_out}),
        "problems": plan.problems,
        "files": [outcome.to_dict() for outcome in outcomes],
    }
    return console.to_json(whole)


def _bar(total: int) -> tuple[Any, Any]:
    from rich.progress import MofNCompleteColumn

    bar = _columns(MofNCompleteColumn())
    return bar, bar.add_task("", total=total, rate="")


def _bar_of_one_file() -> tuple[Any, Any]:
    from rich.progress import TextColumn

    bar = _columns(TextColumn("{task.fields[amount]}"))
    return bar, bar.add_task("", total=None, amount="", rate="")


def _columns(amount: Any) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    rate, eta = TextColumn("{task.fields[rate]}"), TextColumn("ETA")
    return Progress(BarColumn(), amount, rate, eta, TimeRemainingColumn(), console=Console(stderr=True))
