"""`gomin-client calibrate`: the chain of a diffusion model that a server and its users need; heavy imports wait."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gomin_client.cli import options as o
from gomin_client.cli.console import echo, to_json
from gomin_client.cli.records import with_records
from gomin_client.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from gomin_client.inference.pinned import PinnedModel
    from gomin_client.sampling.settings import SamplerSettings
    from gomin_client.tools.calibration import MeasurementsFile, Recording
    from gomin_client.tools.chain_results import ChainResult

_T = TypeVar("_T")
_PERCENTAGE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%")


@dataclass(frozen=True)
class CalibratedModelOptions(o.RequestOptions):
    """The diffusion model; its chains come from the grid."""

    model: o.Model = "diffusion"
    connection: o.ConnectionOptions = field(default_factory=o.ConnectionOptions)

    def open(self) -> PinnedModel:
        """Connect to the model.

        Raises:
            UsageError: it is not a diffusion model.
            GominError: see `Vocoder`.
        """
        opened = self.connect(self.connection.build())
        if opened.sampling is None:
            opened.close()
            raise UsageError(f"model {opened.model} has no sampling chain: choose a diffusion model with --model")
        return opened


@dataclass(frozen=True)
class GridOptions:
    """The chains that are measured."""

    samplers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,…",
            help="Samplers of the grid. Default: all. The full chain, ddpm, is always measured.",
            show_default=False,
        ),
    ] = None
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER,NUMBER,…",
            help="Numbers of steps, of samplers that take any number. Default: 5,10,15,20,25.",
            show_default=False,
        ),
    ] = None
    eta: Annotated[
        str | None,
        typer.Option(
            metavar="0…1,0…1,…", help="Shares of fresh noise in each ddim step. Default: 0.", show_default=False
        ),
    ] = None

    def chains(self, schedule: str, num_diffusion_steps: int) -> list[SamplerSettings]:
        """The chains, the full one first; arguments: see `calibration.grid`.

        Raises:
            UsageError: a value that is not a number, or that no sampler takes.
        """
        from gomin_client.tools.calibration import grid

        return grid(
            _values("--samplers", self.samplers, str, "names"),
            _values("--steps", self.steps, int, "whole numbers"),
            _values("--eta", self.eta, float, "numbers"),
            schedule,
            num_diffusion_steps,
        )


@dataclass(frozen=True)
class ChoiceOptions:
    """Which chain is chosen, and what for."""

    rtf_target: Annotated[
        float | None,
        typer.Option(
            metavar="FACTOR",
            help="Choose the chain nearest to the full chain among those with at least FACTOR × real time.",
            show_default=False,
        ),
    ] = None
    within: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT%",
            help="Choose the chain with the fewest steps whose mel distance to the full chain's result is at most this "
            "share of the full chain's mel distance to the recordings, such as 5%.",
            show_default=False,
        ),
    ] = None
    apply: Annotated[
        Path | None,
        typer.Option(
            metavar="REPOSITORY",
            help="Write the chosen chain into config.pbtxt in this model repository, as the model's default chain.",
            show_default=False,
        ),
    ] = None

    def check(self) -> None:
        """Refuse choices that contradict each other.

        Raises:
            UsageError: they do, or a value is out of range.
        """
        if self.rtf_target is not None and self.within is not None:
            raise UsageError("--rtf-target and --within are two ways to choose: give one of them")
        if self.rtf_target is not None and not 0 < self.rtf_target < math.inf:
            raise UsageError(f"--rtf-target {self.rtf_target:g}: expected a finite number above 0")
        if self.apply is not None and self.rtf_target is None and self.within is None:
            raise UsageError("--apply writes the chosen chain: give --rtf-target or --within too")
        if self.within is not None:
            _share(self.within)

    def config(self, model: PinnedModel) -> Path | None:
        """The config.pbtxt that --apply will write; None without --apply.

        Raises:
            UsageError: the repository does not have the model, or another one of that name.
            FileError, ContractError: the file cannot be changed; see `with_default_chain`.
        """
        from gomin_client.contract.model import ModelContract
        from gomin_client.contract.repository import CONFIG, read_config
        from gomin_client.sampling.settings import SamplerSettings
        from gomin_client.tools.default_chain import with_default_chain

        if self.apply is None:
            return None
        config = self.apply / model.model / CONFIG
        if not config.is_file():
            raise UsageError(
                f"--apply {self.apply}: has no {model.model}/{CONFIG}: expected the model repository, a folder"
            )
        there = ModelContract.from_parameters(model.model, read_config(config))
        if not model.contract.same_model(there, model.version):
            raise UsageError(
                f"--apply {self.apply}: its {model.model} is not version {model.version} at {model.url}, which is "
                "measured: give the repository that is served there"
            )
        with_default_chain(config, model.sampling or SamplerSettings())  # before hours of work, not after
        return config

    def choose(self, results: Sequence[ChainResult], full: SamplerSettings) -> ChainResult | None:
        """The chosen chain; None without --rtf-target and --within.

        Raises:
            UsageError: no chain is fast enough.
        """
        from gomin_client.tools.chain_results import fastest_enough, shortest_within

        if self.rtf_target is not None:
            return fastest_enough(results, self.rtf_target)
        if self.within is not None:
            return shortest_within(results, full, _share(self.within))
        return None


@dataclass(frozen=True)
class CalibrationReportOptions:
    """Where results go."""

    measurements: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Keep the measurements in FILE, in JSON Lines. What it contains is not measured again: the same "
            "command continues after an interruption.",
        ),
    ] = Path("calibration.jsonl")
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw distances over speed into FILE.png.", show_default=False),
    ] = None
    as_json: o.Json = False


@with_records
def calibrate(
    *,
    inputs: o.AudioInputs,
    model: CalibratedModelOptions,
    grid: GridOptions,
    choice: ChoiceOptions,
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Seed of the noise that all chains start from.")] = 0,
    report: CalibrationReportOptions,
) -> None:
    """Measure the chains of a diffusion model over recordings, and choose its default chain.

    Prints a line for each sampler and number of steps: speed on this server, in × real time; mel distance to the
    result of the full chain from the same noise; mel and STFT distances to the recordings. Recordings are processed
    one after the other: use a server that has no other callers.

    Examples:

    gomin-client calibrate recordings/ --url grpc://server:8001 --plot chains.png

    gomin-client calibrate recordings/ --samplers ddim,unipc --steps 5,10,20 --within 5% --apply model_repository
    """
    from gomin_client.tools import calibration, calibration_plot
    from gomin_client.tools.chain_results import summarize, table
    from gomin_client.tools.default_chain import write_default_chain

    choice.check()
    if report.plot is not None:
        calibration_plot.check(report.plot)
    recordings = calibration.find_recordings(inputs)
    with model.open() as opened:
        opened.check_seed(seed)
        config = choice.config(opened)
        chains = grid.chains(*_trained(opened))
        about = _about(opened, seed, model)
        file = calibration.MeasurementsFile(report.measurements, about)
        opened.prepare()
        if not report.as_json:
            echo(f"{opened.model} {opened.version} at {opened.url}, seed {seed}")
        _measure(opened, model.window, recordings, chains, file, seed=seed, quiet=report.as_json)
    results = summarize(file.measured(chains, recordings))
    chosen: ChainResult | None = None
    applied = False
    if not report.as_json:
        for line in table(results).splitlines():
            echo(line)
    try:
        chosen = choice.choose(results, chains[0])
        if chosen is not None and config is not None:
            write_default_chain(config, chosen.chain)
            applied = True
    finally:  # a choice that fails leaves the measurements as they are
        if report.plot is not None:
            calibration_plot.save(report.plot, results, chosen)
        if report.as_json:
            facts = {
                **about,
                "recordings": len(recordings),
                "full_chain": chains[0].to_parameters(),
                "chains": [one.to_dict() for one in results],
                "chosen": chosen and chosen.to_dict(),
                "applied": str(config) if applied else None,
            }
            typer.echo(to_json(facts))
    if not report.as_json:
        _print_choice(chosen, config if applied else None, report.plot)


def _trained(model: PinnedModel) -> tuple[str, int]:
    """The schedule and the number of timesteps that a diffusion model was trained with."""
    from gomin_client.sampling.registry import DEFAULT_SCHEDULE

    schedule = (model.sampling and model.sampling.schedule) or DEFAULT_SCHEDULE
    return schedule, model.contract.num_diffusion_steps or 0


def _about(model: PinnedModel, seed: int, options: CalibratedModelOptions) -> dict[str, Any]:
    """What measurements depend on, for their file."""
    origin = model.contract.provenance.get(model.version)
    return {
        "model": model.model,
        "version": model.version,
        "checkpoint_sha256": origin and origin.checkpoint_sha256,
        "precision": origin and origin.precision,
        "url": model.url,
        "seed": seed,
        "window": options.window,
        "in_flight": options.in_flight,
    }


def _measure(
    model: PinnedModel,
    window: int | None,
    recordings: Sequence[Recording],
    chains: Sequence[SamplerSettings],
    file: MeasurementsFile,
    *,
    seed: int,
    quiet: bool,
) -> None:
    """Measure what is missing, with a progress bar."""
    from gomin_client.cli.progress import ProgressBar
    from gomin_client.tools.calibration import measure, synthesizer

    total = len(recordings) * len(chains)
    missing = sum(len(file.missing(chains, recording)) for recording in recordings)
    if not quiet:
        known = f"; {file.path} has {total - missing} of them" if missing < total else ""
        count = f"{len(recordings)} {'recording' if len(recordings) == 1 else 'recordings'}"
        echo(f"{count}, {len(chains)} chains, {total} measurements{known}")
    done = total - missing
    try:
        with ProgressBar() as bar:
            bar.begin(missing)
            for _ in measure(recordings, chains, model.contract.mel, synthesizer(model, seed, window), file):
                done += 1
                bar.advance()
    except Interrupted as interrupted:
        interrupted.so_far = f"{done} of {total} measurements are in {file.path}; the same command continues from here"
        raise


def _print_choice(chosen: ChainResult | None, config: Path | None, plot: Path | None) -> None:
    if plot is not None:
        echo(str(plot))
    if chosen is not None:
        options = " ".join(f"--{name} {value}" for name, value in chosen.chain.to_parameters().items())
        speed, to_full = f"{chosen.times_real_time:.2f} × real time", f"{chosen.to_full_db:.3f} dB from the full chain"
        echo(f"chosen: {chosen.name}, {speed}, {to_full}: {options}")
    if config is not None:
        echo(f"{config}: has this default chain now; a running server uses it once it loads the model again")


def _values(option: str, text: str | None, read: Callable[[str], _T], expected: str) -> list[_T] | None:
    """The values of an option that takes several, with commas between them.

    Raises:
        UsageError: one cannot be read.
    """
    if text is None:
        return None
    try:
        values = [read(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        values = []
    if not values:
        raise UsageError(f"{option} {text}: expected {expected}, with commas between them")
    return values


def _share(percentage: str) -> float:
    """0.05 of "5%".

    Raises:
        UsageError: it is not a percentage.
    """
    match = _PERCENTAGE.fullmatch(percentage.strip())
    if match is None:
        raise UsageError(f"--within {percentage}: expected a percentage, such as 5%")
    return float(match[1]) / 100
