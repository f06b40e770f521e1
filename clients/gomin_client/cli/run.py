"""What the commands that make files have in common: check, open the model, run the batch, report, exit."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gomin_client.cli.console import keep_what_is_loaded
from gomin_client.cli.model_options import ModelOptions
from gomin_client.cli.options import QuietReportOptions, ReportOptions
from gomin_client.errors import FileError, GominError, ServerError, UsageError
from gomin_client.interrupts import check_interrupted

if TYPE_CHECKING:
    from gomin_client.batch.outputs import BatchPlan, FileJob
    from gomin_client.batch.run import Outcome
    from gomin_client.batch.shards import ShardPlan
    from gomin_client.batch.tasks import BatchSettings
    from gomin_client.cli.progress import Display
    from gomin_client.inference.steps import SteppedModel
    from gomin_client.mel.features import MelConfig
    from gomin_client.transports.statistics import Statistics


@dataclass(frozen=True)
class Vocoding:
    """How to vocode.

    Attributes:
        model: the model; None if no server is asked.
        mel: mel settings that were given, by the names of `MelConfig`; a model must have the same.
    """

    model: ModelOptions | None
    mel: Mapping[str, int] = field(default_factory=dict)

    def open(self, stack: ExitStack) -> tuple[SteppedModel | None, MelConfig]:
        """The model, if there is one, and the settings of mels.

        Raises:
            UsageError: mel settings that are not valid.
            ContractError: mel settings that are not the model's.
            GominError: see `Vocoder`.
        """
        from gomin_client.mel.features import MelConfig

        try:
            if self.model is None:
                return None, MelConfig(**self.mel)
            vocoder = stack.enter_context(self.model.open())
            contract = vocoder.contract
            if self.mel:
                contract.check_mel(vocoder.model, replace(contract.mel, **self.mel))
        except ValueError as error:
            raise UsageError(f"mel settings: {error}") from error
        return vocoder, contract.mel


def run_batch(
    plan: BatchPlan,
    settings: BatchSettings,
    vocoding: Vocoding,
    report: QuietReportOptions,
    plot: Path | None = None,
) -> None:
    """Run the jobs, report, and exit with the status of the batch.

    Args:
        plan: what to make.
        settings: what to do with files.
        vocoding: how to vocode.
        report: what to print.
        plot: a PNG file to draw, or a folder for a picture of each file, if any.

    Raises:
        GominError: a problem that is found before the first file is started.
        typer.Exit: some files failed.
    """
    from gomin_client.batch.inputs import STREAM
    from gomin_client.batch.results import ResultsFile
    from gomin_client.batch.run import run_jobs
    from gomin_client.cli.progress import Display, to_json
    from gomin_client.mel.features import MelConfig

    to_stderr = any(job.target == STREAM for job in plan.jobs)
    if settings.strict:
        plan.require_all()
    _check_files(plan.jobs, settings)
    if to_stderr and report.as_json:
        raise UsageError("--json and -o - would both write to standard output")
    if plot is not None:
        settings = replace(settings, pictures=_check_plot(plot, plan.jobs))
    part = _part(plan.jobs, settings)
    jobs = plan.jobs if part is None else [named.job for named in part.jobs]
    verbose = isinstance(report, ReportOptions) and report.verbose
    with ExitStack() as stack:
        try:
            vocoder, config = vocoding.open(stack) if jobs else (None, MelConfig())
            if vocoder is not None:
                with suppress(ServerError):  # the first file reports it, and the others are not tried
                    vocoder.prepare()  # before the clock of the display starts
        except ServerError:
            _check_existence(jobs)
            raise
        if jobs:
            _check_chain(settings, vocoder)
        display = stack.enter_context(
            Display(
                len(jobs),
                quiet=report.quiet,
                as_json=report.as_json,
                to_stderr=to_stderr,
                print_steps=settings.steps is not None and settings.steps.report,
            )
        )
        for problem in plan.problems:
            display.print_error(f"warning: {problem}")
        settings = _with_seed(settings, vocoder, display)
        before = _statistics(vocoder, display) if verbose else None
        receivers = [display.print_outcome]
        if settings.results is not None and part is not None:
            model = vocoder and f"{vocoder.model} {vocoder.version}"
            results = stack.enter_context(
                ResultsFile(settings.results, part, {"model": model, **_chain_facts(settings, vocoder)})
            )
            receivers.append(results.add)
        check_interrupted()  # a library may have dropped the exception while it was loaded
        keep_what_is_loaded()
        outcomes = run_jobs(jobs, vocoder, config, settings, _to_all(receivers), display.advance, display.show_step)
        failures = [outcome.error for outcome in outcomes if outcome.error is not None]
        server_lost = any(isinstance(error, ServerError) for error in failures)
        try:
            if plot is not None:
                _draw(plot, settings.pictures, outcomes, config, display)
        except GominError as error:  # the files exist all the same, and are reported
            display.print_error(str(error))
            failures.append(error)
        if verbose and not server_lost:
            typer.echo(_timings(vocoder, before, _statistics(vocoder, display)), err=True)
    display.print_summary(outcomes, plan.left_out)
    if part is not None and not jobs:
        display.print(f"shard {part.shard}: no files, there are {part.total}")
    if report.as_json:
        facts = {"model": vocoder and vocoder.model, **_chain_facts(settings, vocoder)}
        typer.echo(to_json(outcomes, plan, **facts, **({"shard": str(settings.shard)} if settings.shard else {})))
    if failures:
        # one file: the status of its failure; many files: 1, or the status of a server that is gone
        raise typer.Exit(ServerError.exit_code if server_lost else failures[0].exit_code if len(jobs) == 1 else 1)


def _check_files(jobs: Sequence[FileJob], settings: BatchSettings) -> None:
    """Refuse settings that have no meaning for the files, before any work is done."""
    from gomin_client.batch.inputs import STREAM
    from gomin_client.batch.outputs import ANALYZE, SYNTHESIZE
    from gomin_client.files import formats, streams
    from gomin_client.mel.scales import MelReading

    if settings.live:
        if any(job.target != STREAM for job in jobs):
            raise UsageError("--stream writes to standard output: give -o -")
        streams.check_subtype(settings.extension, settings.subtype)
    _check_packages(jobs)
    for job in jobs:
        written = formats.to_write(Path(f"x{settings.extension}") if job.target == STREAM else job.target)
        if written is not None and job.task != ANALYZE and not settings.live:
            written.check_subtype(settings.subtype)
    if settings.subtype is not None and all(job.task == ANALYZE for job in jobs):
        raise UsageError(f"--subtype {settings.subtype}: no audio is written")
    is_read = any(job.task == SYNTHESIZE for job in jobs)
    if settings.reading is not None and not is_read and settings.reading != MelReading():
        raise UsageError("--mel-convention, --stft-norm and --transpose are for mel files: there are none")


def _check_existence(jobs: Sequence[FileJob]) -> None:
    """Refuse inputs that are all missing: with a server that is missing too, the files are what the user can mend."""
    from gomin_client.batch.inputs import STREAM

    if not any(job.source == STREAM or _may_exist(job.source) for job in jobs):
        raise FileError(f"{jobs[0].source}: no such file")


def _may_exist(path: Path) -> bool:
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError:  # a folder that cannot be searched, or a name that is too long: reported when it is opened
        return True
    return True


def _check_packages(jobs: Sequence[FileJob]) -> None:
    """Refuse outputs that need a package that is missing, and inputs if all of them do; others fail one by one."""
    from gomin_client.files import formats

    problems = []
    for job in jobs:
        source, target = formats.of(job.source), formats.of(job.target)
        if target is not None:
            target.require(job.target)
        try:
            if source is not None:
                source.require(job.source)
        except UsageError as error:
            problems.append(error)
    if len(problems) == len(jobs):
        raise problems[0]


def _check_plot(path: Path, jobs: Sequence[FileJob]) -> dict[Path, Path]:
    """Refuse a plot that cannot be drawn; returns the pictures of single outputs, if it has a picture for each."""
    from gomin_client.batch import plot
    from gomin_client.batch.outputs import check_extra_outputs

    plot.require_matplotlib()
    pictures = plot.picture_paths(path, [job.target for job in jobs])
    check_extra_outputs(pictures.values() or [path], jobs)
    return pictures


def _part(jobs: Sequence[FileJob], settings: BatchSettings) -> ShardPlan | None:
    """The part of a batch that this process does; None without --shard and --results."""
    from gomin_client.batch.outputs import check_extra_outputs
    from gomin_client.batch.shards import Shard, plan_shard

    if settings.shard is None and settings.results is None:
        return None
    if settings.results is not None:
        check_extra_outputs([settings.results], jobs)
    if settings.shard is not None and settings.plot:
        raise UsageError(f"--plot with --shard {settings.shard}: plots are of whole batches; draw them without --shard")
    return plan_shard(jobs, settings.shard or Shard())


def _to_all(receivers: Sequence[Callable[[Outcome], None]]) -> Callable[[Outcome], None]:
    """A function that passes an outcome on to all of them."""

    def pass_on(outcome: Outcome) -> None:
        for receive in receivers:
            receive(outcome)

    return pass_on


def _chain_facts(settings: BatchSettings, vocoder: SteppedModel | None) -> dict[str, Any]:
    """Seed and chain of a batch, for programs."""
    sampling = None if vocoder is None or vocoder.sampling is None else vocoder.sampling.to_parameters()
    stop_after = None if settings.steps is None else settings.steps.stop_after
    return {"seed": settings.seed, "sampling": sampling, "stop_after": stop_after}


def _check_chain(settings: BatchSettings, vocoder: SteppedModel | None) -> None:
    """Refuse a seed, or steps, that the model does not have."""
    if settings.steps is not None and vocoder is not None:
        vocoder.check_steps(settings.steps.stop_after)
    seed = settings.seed
    if seed is None:
        if settings.shard is not None and vocoder is not None and vocoder.takes_seed:
            raise UsageError(
                f"--shard {settings.shard}: model {vocoder.model} draws noise; give all parts the same --seed"
            )
        return
    if vocoder is None:
        raise UsageError("--seed: nothing is synthesized")
    vocoder.check_seed(seed)


def _with_seed(settings: BatchSettings, vocoder: SteppedModel | None, display: Display) -> BatchSettings:
    """The settings with a fresh seed, if the model needs one and none was given."""
    from gomin_client.inference.pinned import fresh_seed

    if vocoder is None or not vocoder.takes_seed or settings.seed is not None:
        return settings
    settings = replace(settings, seed=fresh_seed())
    display.print(f"seed {settings.seed}")
    return settings


def _draw(
    path: Path, pictures: Mapping[Path, Path], outcomes: Sequence[Outcome], config: MelConfig, display: Display
) -> None:
    """Draw the plot of all reconstructions, and print what was drawn; pictures of single ones are there already."""
    from gomin_client.batch import plot
    from gomin_client.batch.run import DONE

    drawn = [pictures[outcome.job.target].parent for outcome in outcomes if pictures and outcome.status == DONE]
    columns = [outcome.column for outcome in outcomes if outcome.column is not None]
    if drawn:
        count = f"{len(drawn)} {'picture' if len(drawn) == 1 else 'pictures'}"
        display.print(f"{count} in {os.path.commonpath(drawn)}")
    elif columns:
        plot.save(path, columns, config)
        display.print(str(path))
    else:
        display.print_error(f"warning: {path}: not drawn: no new reconstruction was made")


def _statistics(vocoder: SteppedModel | None, display: Display) -> Statistics | None:
    """The server's statistics; None, with a warning, if it does not report them."""
    from gomin_client.transports.statistics import settled

    try:
        return None if vocoder is None else settled(vocoder.statistics)
    except GominError as error:
        display.print_error(f"warning: no statistics: {error.problem if isinstance(error, ServerError) else error}")
        return None


def _timings(vocoder: SteppedModel | None, before: Statistics | None, now: Statistics | None) -> str:
    """How the server spent its time between two readings of its statistics."""
    from gomin_client.inference.windows import overhead

    if vocoder is None or now is None or before is None:
        return "no server statistics are available"
    spent = now.since(before)
    if not spent.is_growth:
        return "a server was restarted during the run: its statistics begin at the restart"
    requests = max(spent.requests, 1)
    parts = {
        "queue": spent.queue_s,
        "input": spent.compute_input_s,
        "model": spent.compute_s,
        "output": spent.compute_output_s,
    }
    means = ", ".join(f"{name} {1000 * seconds / requests:.1f} ms" for name, seconds in parts.items())
    halo = vocoder.chain_halo_frames
    return (
        f"windows of {vocoder.window} frames, {2 * halo} of them halo: {100 * overhead(vocoder.window, halo):.0f} % "
        f"more work for long files than without windows; server, for all its callers during the run: {spent.requests} "
        f"requests, {spent.inferences} items in {spent.executions} calls of the model; mean per request: {means}"
    )
