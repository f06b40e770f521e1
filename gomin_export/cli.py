"""gomin-export: exports GOMIN checkpoints into a Triton model repository, and verifies what is deployed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gomin_client.cli.console import Version, run
from gomin_client.cli.model_options import ConnectionOptions
from gomin_client.cli.records import with_records
from gomin_client.contract.model import SHORT_NAMES
from gomin_client.errors import GominError, ServerError, UsageError
from gomin_client.interrupts import check_interrupted
from gomin_export import options as o
from gomin_export.errors import ParityError
from gomin_export.network_options import OwnOptions
from gomin_export.networks.registry import ARCHITECTURES, Architecture

if TYPE_CHECKING:
    from gomin_export.parity.gate import Report
    from gomin_export.plan import ExportPlan
    from gomin_export.verify import Criteria, Reference

_LOADING = (
    "If the server was started before the export: in poll mode it loads new versions by itself, in explicit mode "
    "request it to load the models, otherwise restart it. If it could not load them, its log has the reason"
)

app = typer.Typer(
    name="gomin-export",
    help="Export GOMIN checkpoints to ONNX, prove that they compute what PyTorch computes, place them in a Triton "
    "model repository, and verify deployed models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# The last one says what was done, for a user who presses Ctrl-C.
_so_far: list[Callable[[], str]] = [lambda: "nothing was changed"]


@app.callback()
def _global(_version: Version = False) -> None:
    pass


def _command(architecture: Architecture) -> Callable[..., None]:
    """The command that exports checkpoints of one network."""

    def command(
        ckpt: o.Checkpoint,
        repository: o.Repository = o.DEFAULT_REPOSITORY,
        *,
        source: o.CheckpointOptions,
        form: o.GraphFormOptions,
        own: OwnOptions,
        tolerance: o.ToleranceOptions,
        deployment: o.DeploymentOptions,
        placing: o.PlacingOptions,
    ) -> None:
        settings = deployment.build()
        with _torch_needed():
            from gomin_export import pipeline  # takes seconds: torch
            from gomin_export.checkpoints.sources import locate
            from gomin_export.onnx.forms import GraphOptions
            from gomin_export.plan import ExportOptions
        options = ExportOptions(
            overrides=_read_config(architecture, source.config),
            key=source.key,
            graph=GraphOptions(form.precision, form.lowering),
            atol=tolerance.atol,
            min_snr=tolerance.min_snr,
            deployment=settings,
            overwrite_config=placing.overwrite_config,
            version=placing.version,
            keep=placing.keep,
        )
        located = locate(ckpt, source.sha256, _say)
        export = pipeline.Export(architecture, located, repository, own.applied_to(options), say=_say)
        if placing.dry_run:
            _show_plan(export.plan)
            return
        _so_far.append(lambda: "the models are in place" if export.placed else "nothing was placed")
        exported = export.run()
        for path in exported.plan.paths:
            typer.echo(str(path))
        if not export.placed:
            _say(f"version {exported.plan.version} was already there: nothing was written")

    command.__annotations__["own"] = architecture.option_record
    return with_records(command)


for _architecture in ARCHITECTURES.values():
    app.command(_architecture.name, help=_architecture.help)(_command(_architecture))


@app.command()
@with_records
def verify(
    *,
    connection: ConnectionOptions,
    deployed: o.DeployedOptions,
    reference: o.ReferenceOptions,
    source: o.CheckpointOptions,
    tolerance: o.ToleranceOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON.")] = False,
) -> None:
    """Repeat the parity gate with deployed models: in a repository, or on a live server.

    The reference is the cases that the export recorded in the repository, or PyTorch itself (--ckpt). Exit status 4 if
    a model is another one, has a newer version or another precision, or gives other outputs. Exit status 3 if nothing
    differs, but the server has not loaded a model or its version. Of gomin_diffusion_stream, only contract and
    checkpoint are compared over HTTP, since its outputs need a gRPC stream.

    Examples:

    gomin-export verify --repository model_repository

    gomin-export verify --url grpc://server:8001 --repository model_repository

    gomin-export verify --url grpc://server:8001 --ckpt gan_state_dict.pt --model gan
    """
    from gomin_client.transports.registry import connect
    from gomin_export.verify import Criteria, RecordedReference, verify

    ckpt, url = reference.ckpt, deployed.url
    if url is not None and ckpt is not None and deployed.repository is not None:
        raise UsageError("--url with both --ckpt and --repository: give one of the two as the reference")
    if ckpt is None and (source.config or source.key or source.sha256):
        raise UsageError("--config, --key and --sha256 describe how to read --ckpt, which is missing")
    home = deployed.repository or o.DEFAULT_REPOSITORY
    criteria = Criteria(reference.version, reference.precision, tolerance.atol, tolerance.min_snr)
    source_of_truth: Reference = (
        RecordedReference(home, criteria) if ckpt is None else _checkpoint_reference(ckpt, source, criteria)
    )
    known = source_of_truth.models()
    wanted = SHORT_NAMES.get(deployed.model, deployed.model)
    if wanted not in (*known, "all"):
        raise UsageError(f"--model {deployed.model}: the exports to compare with are of {', '.join(known)}")
    reports = []
    with connect(url or f"local:{home}", connection.build()) as target:
        directory = Path(target.url.removeprefix("local:")) if target.url.startswith("local:") else None
        for name in known if wanted == "all" else [wanted]:
            expected = source_of_truth.expectation(name)
            reports.append(verify(target, name, expected, directory, (lambda _: None) if as_json else typer.echo))
    if as_json:
        typer.echo(json.dumps([report.to_dict() for report in reports], indent=2, ensure_ascii=False))
    if not any(report.outcomes for report in reports):
        raise UsageError(f"{url}: {reports[0].model}: {reports[0].facts['note']}")
    failed = [report for report in reports if report.failed]
    if failed:
        raise _verdict(str(url or home), failed, len(reports), on_server=directory is None)


def _verdict(where: str, failed: Sequence[Report], count: int, *, on_server: bool) -> GominError:
    """The error of a verification in which some models failed: whether they differ, or are only not loaded."""
    worst = failed[0].worst
    said = (
        f"{where}: {len(failed)} of {count} models failed; {failed[0].model}: {worst.name}: "
        f"{worst.problem or f'off by {worst.max_abs_error:.2e}'}"
    )
    if len(failed) > 1:
        said += f"; failed too: {', '.join(report.model for report in failed[1:])}"
    if on_server and not any(report.facts["deployed"] for report in failed):
        return ServerError(f"{said}. These models were not compared. {_LOADING}")
    return ParityError(said)


def _checkpoint_reference(ckpt: str, source: o.CheckpointOptions, criteria: Criteria) -> Reference:
    with _torch_needed():
        from gomin_export.checkpoints import detect_kind
        from gomin_export.checkpoints.sources import locate
        from gomin_export.verify import CheckpointReference

        located = locate(ckpt, source.sha256, _say)
        architecture = ARCHITECTURES[detect_kind(located.path, source.key)]
        overrides = _read_config(architecture, source.config)
        return CheckpointReference(architecture, located, overrides, source.key, criteria, _say)


def _read_config(architecture: Architecture, path: Path | None) -> dict[str, Any]:
    """Constructor arguments from a JSON file, {} without a file."""
    from gomin_export.checkpoints import read_config_file

    return {} if path is None else read_config_file(path, architecture.network_class.config_class)


def _show_plan(plan: ExportPlan) -> None:
    """Print the changes of an export, for --dry-run."""
    texts = plan.config_texts()
    for model in plan.models:
        home, text = plan.repository / model.name, texts[model.name]
        made = "is there already, by the same recipe" if model.exists else "would be made"
        typer.echo(f"# {home / str(model.version)}: {made}")
        for number in model.dropped:
            typer.echo(f"# {home / str(number)}: would be removed")
        typer.echo(f"# {home / 'config.pbtxt'}:")
        typer.echo(text)


def _say(line: str) -> None:
    check_interrupted()  # between the stages: a library may have dropped the exception
    typer.echo(line, err=True)


@contextmanager
def _torch_needed() -> Iterator[None]:
    """Import torch within: an error says how to install it.

    The OpenMP threads that torch computes with spin while they wait, unless the environment says otherwise when they
    start. On busy cores they take time from the threads that they wait for: beside two other processes on two cores,
    an export took three times the CPU time, and four times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(f"this needs the package {error.name}: pip install 'gomin-triton[export]'") from None


def main() -> None:
    """Entry point."""
    run(app, "gomin-export", lambda: _so_far[-1]())


if __name__ == "__main__":
    main()
