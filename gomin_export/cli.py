"""gomin-export: GOMIN checkpoints into a Triton model repository."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import typer

from gomin_client.cli.console import Version, run
from gomin_client.cli.options import ConnectionOptions
from gomin_client.cli.records import with_records
from gomin_client.contract.choices import SAMPLER_PARAMETERS
from gomin_client.contract.model import FP32, PRECISIONS, SHORT_NAMES
from gomin_client.errors import UsageError
from gomin_export import options as o
from gomin_export.choices import TARGETS
from gomin_export.errors import ParityError

if TYPE_CHECKING:
    from gomin_client.sampling.settings import SamplerSettings
    from gomin_export.parity.gate import Report
    from gomin_export.pipeline import Plan
    from gomin_export.verify import Reference

app = typer.Typer(
    name="gomin-export",
    help="Export GOMIN checkpoints to ONNX, prove that they compute what PyTorch computes, place them in a Triton "
    "model repository, and verify what is deployed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DEFAULT_REPOSITORY = Path("model_repository")


# What only one kind of checkpoint has.
_OPTIONS_OF = {"gan": ("target",), "diffusion": (*SAMPLER_PARAMETERS, "tile_frames")}

# What to tell a user who presses Ctrl-C.
_so_far: list[Callable[[], str]] = [lambda: "nothing was changed"]


@app.callback()
def _global(_version: Version = False) -> None:
    pass


def _command(kind: str) -> Callable[..., None]:
    """The command that exports checkpoints of one kind."""

    def command(
        ckpt: o.Checkpoint,
        repository: o.Repository = DEFAULT_REPOSITORY,
        config: o.Config = None,
        key: o.Key = None,
        precision: o.Precision = FP32,
        lowering: o.Lowering = True,
        target: o.Target = None,
        atol: o.Atol = None,
        min_snr: o.MinSnr = None,
        max_batch_size: o.MaxBatchSize = None,
        batch_delay_us: o.BatchDelay = None,
        instances: o.Instances = None,
        instance_kind: o.InstanceKind = None,
        threads: o.Threads = None,
        warm_up: o.WarmUp = None,
        cudnn_search: o.CudnnSearch = None,
        tf32: o.Tf32 = None,
        accelerator: o.Accelerator = None,
        sampler: o.Sampler = None,
        steps: o.Steps = None,
        schedule: o.Schedule = None,
        eta: o.Eta = None,
        tile_frames: o.TileFrames = None,
        overwrite_config: o.OverwriteConfig = False,
        version: o.ModelVersion = None,
        keep: o.Keep = None,
        dry_run: o.DryRun = False,
    ) -> None:
        _check_tolerance(precision, atol, min_snr)
        from gomin_export.repository.config import Deployment

        deployment = Deployment(
            max_batch_size=max_batch_size,
            batch_delay_us=batch_delay_us,
            instances=instances,
            instance_kind=instance_kind,
            threads=threads,
            warm_up=_shapes(warm_up),
            cudnn_search=cudnn_search,
            tf32=tf32,
            accelerator=accelerator,
            sampling=_sampling(sampler=sampler, steps=steps, schedule=schedule, eta=eta),
            tile_frames=tile_frames,
        )
        with _torch_needed():
            from gomin_export import pipeline  # takes seconds: torch
            from gomin_export.onnx.export import Graph
        options = pipeline.Options(
            overrides=_read_config(config, kind),
            key=key,
            graph=Graph(precision, lowering, TARGETS[0] if target is None else target),
            atol=atol,
            min_snr=min_snr,
            deployment=deployment,
            overwrite_config=overwrite_config,
            version=version,
            keep=keep,
        )
        export = pipeline.Export(kind, ckpt, repository, options, say=_say)
        if dry_run:
            _show_plan(export.plan)
            return
        _so_far.append(lambda: "the models are in place" if export.placed else "nothing was placed")
        exported = export.run()
        for report in exported.reports:
            _show_report(report, _say)
        for path in exported.plan.paths:
            typer.echo(str(path))

    types = get_type_hints(command, include_extras=True)
    others = {name for other, names in _OPTIONS_OF.items() if other != kind for name in names}
    kept = [
        parameter.replace(annotation=types[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if name not in others
    ]
    command.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    return command


app.command(
    "gan",
    help="Export a GAN checkpoint as the model gomin_gan.\n\nExample: gomin-export gan --ckpt gan_state_dict.pt",
)(_command("gan"))
app.command(
    "diffusion",
    help="Export a diffusion checkpoint as the models gomin_denoiser (one step) and gomin_diffusion (the whole chain)."
    "\n\nExample: gomin-export diffusion --ckpt diffusion_state_dict.pt",
)(_command("diffusion"))


@app.command()
@with_records
def verify(
    *,
    connection: ConnectionOptions,
    repository: o.VerifiedRepository = None,
    url: o.Url = None,
    model: o.Model = "all",
    ckpt: o.ReferenceCheckpoint = None,
    config: o.Config = None,
    key: o.Key = None,
    version: o.VerifiedVersion = None,
    precision: o.ExpectedPrecision = None,
    atol: o.Atol = None,
    min_snr: o.MinSnr = None,
    as_json: o.Json = False,
) -> None:
    """Replay the parity gate against what is deployed: a repository, or a live server.

    Compares with the vectors that the export recorded in the repository, or with PyTorch itself (--ckpt). Exit status 4
    if a model is missing, swapped, of another version or precision, or answers something else.

    Examples:

    gomin-export verify --repository model_repository

    gomin-export verify --url grpc://server:8001 --repository model_repository

    gomin-export verify --url grpc://server:8001 --ckpt gan_state_dict.pt --model gan
    """
    from gomin_client.transports.registry import connect
    from gomin_export.verify import RecordedReference, verify

    _check_tolerance(precision, atol, min_snr)
    if version is not None and version < 1:
        raise UsageError(f"--version {version}: Triton's versions begin at 1")
    if url is not None and ckpt is not None and repository is not None:
        raise UsageError("--url with both --ckpt and --repository: give one of the two as the reference")
    if ckpt is None and (config or key):
        raise UsageError("--config and --key tell how to read --ckpt, which is missing")
    home = repository or DEFAULT_REPOSITORY
    reference: Reference
    if ckpt is None:
        reference = RecordedReference(home, version, precision, atol, min_snr)
    else:
        reference = _checkpoint_reference(ckpt, config, key, version, precision, atol, min_snr)
    known = reference.models()
    wanted = SHORT_NAMES.get(model, model)
    if wanted not in (*known, "all"):
        raise UsageError(f"--model {model}: the reference knows {', '.join(known)}")
    reports = []
    target = connect(url or f"local:{home}", connection.build())
    directory = Path(target.url.removeprefix("local:")) if target.url.startswith("local:") else None
    try:
        for name in known if wanted == "all" else [wanted]:
            reports.append(verify(target, name, reference.truth(name), directory))
            if not as_json:
                _show_report(reports[-1], typer.echo)
    finally:
        target.close()
    if as_json:
        typer.echo(json.dumps([report.to_dict() for report in reports], indent=2, ensure_ascii=False))
    failed = [report for report in reports if report.failed]
    if failed:
        worst = failed[0].worst
        raise ParityError(
            f"{url or home}: {len(failed)} of {len(reports)} models failed; {failed[0].model}: "
            f"{worst.name}: {worst.problem or f'off by {worst.max_abs_error:.2e}'}"
        )


def _checkpoint_reference(ckpt: Path, config: Path | None, key: str | None, *expected: Any) -> Reference:
    with _torch_needed():
        from gomin_export.checkpoints import detect_kind
        from gomin_export.verify import CheckpointReference

        return CheckpointReference(ckpt, _read_config(config, detect_kind(ckpt, key)) if config else {}, key, *expected)


def _read_config(path: Path | None, kind: str) -> dict[str, Any]:
    from gomin_export.checkpoints import read_config_file
    from gomin_export.pipeline import NETWORKS

    return read_config_file(path, NETWORKS[kind].config_class) if path else {}


def _check_tolerance(precision: str | None, atol: float | None, min_snr: float | None) -> None:
    if precision not in (None, *PRECISIONS):
        raise UsageError(f"--precision {precision}: expected {' or '.join(PRECISIONS)}")
    if atol is not None and not 0 <= atol < math.inf:
        raise UsageError(f"--atol {atol}: expected 0 or more")
    if min_snr is not None and not math.isfinite(min_snr):
        raise UsageError(f"--min-snr {min_snr}: expected a number of dB")


def _shapes(texts: list[str] | None) -> list[tuple[int, int]] | None:
    """Warm-up requests as (batch, frames); "none" for none at all, None where nothing was said."""
    if not texts or texts == ["none"]:
        return [] if texts else None
    shapes = []
    for text in texts:
        numbers = text.split("x")
        if not all(number.isdecimal() for number in numbers) or len(numbers) > 2:
            raise UsageError(f"--warm-up {text}: expected FRAMES, BATCHxFRAMES, or none alone")
        shapes.append((int(numbers[0]) if len(numbers) == 2 else 1, int(numbers[-1])))
    return shapes


def _sampling(**asked: Any) -> SamplerSettings | None:
    """The default chain as it was asked for; None where nothing was said."""
    from gomin_client.sampling.settings import SamplerSettings

    settings = SamplerSettings(**asked)
    return settings if settings.to_parameters() else None


def _show_plan(plan: Plan) -> None:
    """What an export would write, for --dry-run."""
    for model, text in plan.config_texts().items():
        home = plan.repository / model
        made = "is there already, by the same recipe" if plan.exists else "would be made"
        typer.echo(f"# {home / str(plan.version)}: {made}")
        for number in plan.dropped[model]:
            typer.echo(f"# {home / str(number)}: would be removed")
        typer.echo(f"# {home / 'config.pbtxt'}:")
        typer.echo(text)


def _show_report(report: Report, say: Callable[[str], None]) -> None:
    say(report.table())
    say(f"{report.model}: {report.summary}")
    if "note" in report.facts:
        say(f"{report.model}: {report.facts['note']}")


def _say(line: str) -> None:
    typer.echo(line, err=True)


@contextmanager
def _torch_needed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(f"this needs the package {error.name}: pip install 'gomin-triton[export]'") from None


def main() -> None:
    """Entry point."""
    run(app, "gomin-export", lambda: _so_far[-1]())


if __name__ == "__main__":
    main()
