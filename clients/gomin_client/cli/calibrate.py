"""`gomin-client calibrate`: the chain of a diffusion model that a server and its users need; heavy imports wait."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gomin_client.cli import options as o
from gomin_client.cli.calibrate_options import (
    CalibratedModelOptions,
    CalibrationReportOptions,
    ChoiceOptions,
    GridOptions,
    SearchOptions,
)
from gomin_client.cli.console import echo, to_json
from gomin_client.cli.records import with_records
from gomin_client.errors import Interrupted

if TYPE_CHECKING:
    from gomin_client.inference.pinned import PinnedModel
    from gomin_client.sampling.settings import SamplerSettings
    from gomin_client.tools.calibration import Meter
    from gomin_client.tools.chain_results import ChainResult
    from gomin_client.tools.timestep_search import Found


@with_records
def calibrate(
    *,
    inputs: o.AudioInputs,
    model: CalibratedModelOptions,
    grid: GridOptions,
    search: SearchOptions,
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

    gomin-client calibrate recordings/ --samplers unipc --steps 6 --search 6 --rtf-target 10 --apply model_repository
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
        choice.configs(opened)  # refused before hours of work, not after
        schedule, timesteps = _trained(opened)
        chains = grid.chains(schedule, timesteps, search.steps())
        starts = search.starts(chains)
        about = _about(opened, seed, model)
        file = calibration.MeasurementsFile(report.measurements, about)
        opened.prepare()
        if not report.as_json:
            echo(f"{opened.model} {opened.version} at {opened.url}, seed {seed}")
        meter = calibration.Meter(
            recordings,
            chains[0],
            opened.contract.mel,
            calibration.synthesizer(opened, seed, model.window),
            file,
            keep_references=bool(starts),
        )
        _measure(meter, chains, quiet=report.as_json)
        searches = _search(meter, starts, timesteps, search.most_chains, quiet=report.as_json)
        chains += [one.chain for one in searches if one.chain not in chains]
    results = summarize(file.measured(chains, recordings))
    chosen: ChainResult | None = None
    applied: list[Path] = []
    if not report.as_json:
        for line in table(results).splitlines():
            echo(line)
    try:
        chosen = choice.choose(results, chains[0])
        if chosen is not None:
            for config in choice.configs(opened):  # read again: an export may have changed them meanwhile
                write_default_chain(config, chosen.chain)
                applied.append(config)
    finally:  # a choice that fails leaves the measurements as they are
        if report.plot is not None:
            calibration_plot.save(report.plot, results, chosen)
        if report.as_json:
            facts = {
                **about,
                "recordings": len(recordings),
                "full_chain": chains[0].to_parameters(),
                "chains": [one.to_dict() for one in results],
                "searches": [one.to_dict() for one in searches],
                "chosen": chosen and chosen.to_dict(),
                "applied": [str(config) for config in applied],
            }
            typer.echo(to_json(facts))
        else:
            _print_choice(chosen, applied, report.plot)


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


def _measure(meter: Meter, chains: Sequence[SamplerSettings], *, quiet: bool) -> None:
    """Measure what is missing, with a progress bar."""
    from gomin_client.cli.progress import ProgressBar

    file, recordings = meter.file, len(meter.recordings)
    total = recordings * len(chains)
    missing = sum(len(file.missing(chains, recording)) for recording in meter.recordings)
    if not quiet:
        known = f"; {file.path} has {total - missing} of them" if missing < total else ""
        count = f"{recordings} {'recording' if recordings == 1 else 'recordings'}"
        echo(f"{count}, {len(chains)} chains, {total} measurements{known}")
    done = total - missing
    try:
        with ProgressBar() as bar:
            bar.begin(missing)
            for _ in meter.measure(chains):
                done += 1
                bar.advance()
    except Interrupted as interrupted:
        interrupted.so_far = f"{done} of {total} measurements are in {file.path}; the same command continues from here"
        raise


def _search(
    meter: Meter, starts: Sequence[SamplerSettings], num_diffusion_steps: int, most: int, *, quiet: bool
) -> list[Found]:
    """Search for timesteps from each of the chains, with a progress bar and a line for each."""
    from gomin_client.cli.progress import ProgressBar
    from gomin_client.tools.chain_results import chain_name, summarize
    from gomin_client.tools.timestep_search import find_timesteps

    found = []
    try:
        for start in starts:
            with ProgressBar() as bar:
                bar.begin(most)

                def to_full_db(chain: SamplerSettings, bar: ProgressBar = bar) -> float:
                    for _ in meter.measure([chain]):
                        pass
                    bar.advance()
                    (result,) = summarize(meter.file.measured([chain], meter.recordings))
                    return result.to_full_db

                one = find_timesteps(start, num_diffusion_steps, to_full_db, most)
            found.append(one)
            if not quiet:
                nearer = f"{one.start_to_full_db:.3f} to {one.to_full_db:.3f} dB from the full chain"
                echo(f"search: {chain_name(start)}: {one.chains} chains, {nearer}")
    except Interrupted as interrupted:
        interrupted.so_far = f"all measurements so far are in {meter.file.path}; the same command continues from here"
        raise
    return found


def _print_choice(chosen: ChainResult | None, configs: Sequence[Path], plot: Path | None) -> None:
    if plot is not None:
        echo(str(plot))
    if chosen is not None:
        options = " ".join(f"--{name} {value}" for name, value in chosen.chain.to_parameters().items())
        speed, to_full = f"{chosen.times_real_time:.2f} × real time", f"{chosen.to_full_db:.3f} dB from the full chain"
        echo(f"chosen: {chosen.name}, {speed}, {to_full}: {options}")
    for config in configs:
        echo(f"{config}: has this default chain now; a running server uses it once it loads the model again")
