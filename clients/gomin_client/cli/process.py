"""What the commands that make files have in common: check, open the model, run the batch, show it, end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gomin_client.errors import GominError, ServerError, UsageError

if TYPE_CHECKING:
    from gomin_client.batch.outputs import Job
    from gomin_client.batch.run import Outcome
    from gomin_client.cli.progress import Display
    from gomin_client.mel.features import MelConfig
    from gomin_client.mel.scales import Reading
    from gomin_client.transports.base import Statistics
    from gomin_client.transports.connection import Connection
    from gomin_client.vocoder import Vocoder


@dataclass(frozen=True)
class Show:
    """What to print.

    Attributes:
        quiet: errors and warnings only.
        verbose: where the time went on the server, too.
        as_json: a summary for machines, and nothing else, on standard output.
    """

    quiet: bool
    verbose: bool
    as_json: bool


def process(
    jobs: Sequence[Job],
    *,
    url: str | Sequence[str] | None,
    model: str,
    connection: Connection,
    show: Show,
    given: dict[str, int] | None = None,
    trim: bool = True,
    seed: int | None = None,
    reading: Reading | None = None,
    channels: str = "mono",
    subtype: str | None = None,
    extension: str = ".wav",
    plot: Path | None = None,
    skip_existing: bool = False,
    parallel: int = 1,
    how: dict[str, Any] | None = None,
    live: bool = False,
) -> None:
    """Run the jobs, report, and end with the status that tells how it went.

    Mels are made with the settings of the model at `url`; without one, with those that are given. The rest: see
    `batch.Settings` and `Vocoder`.
    """
    from gomin_client.batch import plot as plots
    from gomin_client.batch.outputs import STREAM, SYNTHESIZE, check_extra
    from gomin_client.batch.run import FAILED, Settings, run_jobs
    from gomin_client.cli.progress import Display, to_json
    from gomin_client.mel.scales import Reading
    from gomin_client.vocoder import fresh_seed

    _check(jobs, channels, subtype, extension, live)
    reading = reading or Reading()
    if reading != Reading() and not any(job.task == SYNTHESIZE for job in jobs):
        raise UsageError("--mel-convention, --stft-norm, --transpose and --force are for mel files: there are none")
    to_stderr = any(job.target == STREAM for job in jobs)
    if to_stderr and show.as_json:
        raise UsageError("--json and -o - would both write to standard output")
    if plot is not None:
        plots.require_matplotlib()
        check_extra(plot, jobs, extension=".png")
        if len(jobs) > plots.MAX_COLUMNS:
            raise UsageError(f"--plot shows up to {plots.MAX_COLUMNS} files; there are {len(jobs)}")
    with ExitStack() as stack:
        vocoder, config = _open(stack, url, model, given or {}, connection=connection, **(how or {}))
        if seed is not None and vocoder is None:
            raise UsageError("--seed: there is nothing to be synthesized")
        if seed is not None and vocoder is not None:
            vocoder.check_seed(seed)
        display = stack.enter_context(Display(len(jobs), quiet=show.quiet, as_json=show.as_json, to_stderr=to_stderr))
        if vocoder is not None and vocoder.takes_seed and seed is None:
            seed = fresh_seed()
            display.say(f"seed {seed}")
        before = _statistics(vocoder, display) if show.verbose else None
        settings = Settings(
            trim=trim,
            seed=seed,
            reading=reading,
            all_channels=channels == "all",
            subtype=subtype,
            extension=extension,
            keep_waves=plot is not None,
            skip_existing=skip_existing,
            jobs=parallel,
            live=live,
            comment=vocoder.comment(seed) if vocoder is not None else "",
            first_window=vocoder.first_window if live and vocoder is not None else None,
        )
        outcomes = run_jobs(jobs, vocoder, config, settings, display.show)
        failures = [outcome.error for outcome in outcomes if outcome.status == FAILED and outcome.error is not None]
        lost = any(isinstance(error, ServerError) for error in failures)
        try:
            if plot is not None:
                _draw(plot, outcomes, config, display)
        except GominError as error:  # the files are there all the same, and are to be told of
            display.complain(str(error))
            failures.append(error)
        if show.verbose and not lost:
            typer.echo(_timings(vocoder, before, _statistics(vocoder, display)), err=True)
    display.summarize(outcomes)
    if show.as_json:
        typer.echo(to_json(outcomes, model=vocoder.model if vocoder else None, seed=seed))
    if failures:
        # of a single file the kind of failure can be told, of many only that some failed, or that the server did
        raise typer.Exit(ServerError.exit_code if lost else failures[0].exit_code if len(jobs) == 1 else 1)


def _draw(path: Path, outcomes: Sequence[Outcome], config: MelConfig, display: Display) -> None:
    from gomin_client.batch import plot as plots

    comparisons = [outcome.comparison for outcome in outcomes if outcome.comparison is not None]
    if not comparisons:
        display.complain(f"warning: {path}: not drawn, there is no new reconstruction to show")
        return
    plots.save(path, comparisons, config)
    display.say(str(path))


def _statistics(vocoder: Vocoder | None, display: Display) -> Statistics | None:
    """What the server has counted; it need not tell to be of use."""
    from gomin_client.transports.base import settled

    try:
        return None if vocoder is None else settled(vocoder.statistics)
    except GominError as error:
        display.complain(f"warning: no statistics: {error.problem if isinstance(error, ServerError) else error}")
        return None


def _timings(vocoder: Vocoder | None, before: Statistics | None, now: Statistics | None) -> str:
    """Where the time went on the server since `before`."""
    from gomin_client.inference.windows import overhead

    if vocoder is None or now is None or before is None:
        return "there are no statistics of a server"
    spent = now.since(before)
    if not spent.is_growth:
        return "a server was restarted meanwhile: its statistics begin with that"
    requests = max(spent.requests, 1)
    parts = {
        "queue": spent.queue_s,
        "input": spent.compute_input_s,
        "model": spent.compute_s,
        "output": spent.compute_output_s,
    }
    means = ", ".join(f"{name} {1000 * seconds / requests:.1f} ms" for name, seconds in parts.items())
    windows = f"windows of {vocoder.window} frames, of which {2 * vocoder.halo_frames} are halo: "
    return (
        f"{windows}{100 * overhead(vocoder.window, vocoder.halo_frames):.0f} % more work than without, of long files; "
        f"server, of all its callers meanwhile: {spent.requests} requests, {spent.inferences} items in "
        f"{spent.executions} calls of the model; per request {means}"
    )


def _open(
    stack: ExitStack, url: str | Sequence[str] | None, model: str, given: dict[str, int], **how: Any
) -> tuple[Vocoder | None, MelConfig]:
    """The model, if one is needed, and the mel settings."""
    from gomin_client.mel.features import MelConfig
    from gomin_client.vocoder import Vocoder

    try:
        if url is None:
            return None, MelConfig(**given)
        vocoder = stack.enter_context(Vocoder(url, model, **how))
        vocoder.contract.check_mel(vocoder.model, MelConfig(**{**vars(vocoder.contract.mel), **given}))
    except ValueError as error:
        raise UsageError(f"mel settings: {error}") from error
    return vocoder, vocoder.contract.mel


def _check(jobs: Sequence[Job], channels: str, subtype: str | None, extension: str, live: bool) -> None:
    from gomin_client.batch.outputs import ANALYZE, STREAM
    from gomin_client.files import formats, stdio

    if channels not in ("mono", "all"):
        raise UsageError(f"--channels {channels}: expected mono or all")
    if live:
        if any(job.target != STREAM for job in jobs):
            raise UsageError("--stream writes to standard output: give -o -")
        stdio.check_stream_subtype(extension, subtype)
    for job in jobs:
        for path in (job.source, job.target):
            known = formats.of(path)
            if known is not None:
                known.require(path)
        written = formats.to_write(Path(f"x{extension}") if job.target == STREAM else job.target)
        if written is not None and job.task != ANALYZE and not live:
            written.check_subtype(subtype)
    if subtype is not None and all(job.task == ANALYZE for job in jobs):
        raise UsageError(f"--subtype {subtype}: there is no audio to be written")
