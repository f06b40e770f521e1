"""gomin-export: GOMIN checkpoints into a Triton model repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from gomin_client.console import Version, run
from gomin_client.errors import UsageError

app = typer.Typer(
    name="gomin-export",
    help="Export GOMIN checkpoints to ONNX, prove that they compute what PyTorch computes, and place them in a Triton "
    "model repository.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Checkpoint = Annotated[Path, typer.Option("--ckpt", help="The checkpoint: a state dict (.pt, .pth, .safetensors).")]
Repository = Annotated[Path, typer.Option(help="The Triton model repository to export into; made if missing.")]
Config = Annotated[
    Optional[Path],  # noqa: UP045 (typer reads this at run time, on Python 3.10 too)
    typer.Option(help="JSON file of config values that win over what the checkpoint's tensors show."),
]
Key = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Which state dict to take from a checkpoint that holds several, for example ema."),
]

DEFAULT_REPOSITORY = Path("model_repository")


@app.callback()
def _global(_version: Version = False) -> None:
    pass


@app.command()
def gan(ckpt: Checkpoint, repository: Repository = DEFAULT_REPOSITORY, config: Config = None, key: Key = None) -> None:
    """Export a GAN checkpoint as the model gomin_gan.

    Example: gomin-export gan --ckpt gan_state_dict.pt
    """
    _export("gan", ckpt, repository, config, key)


@app.command()
def diffusion(
    ckpt: Checkpoint, repository: Repository = DEFAULT_REPOSITORY, config: Config = None, key: Key = None
) -> None:
    """Export a diffusion checkpoint as the models gomin_denoiser (one step) and gomin_diffusion (the whole chain).

    Example: gomin-export diffusion --ckpt diffusion_state_dict.pt
    """
    _export("diffusion", ckpt, repository, config, key)


def _export(kind: str, ckpt: Path, repository: Path, config: Path | None, key: str | None) -> None:
    try:
        from gomin_export import pipeline  # takes seconds: torch
        from gomin_export.checkpoints import read_config_file
        from gomin_export.networks import DiffusionConfig, GANConfig
    except ModuleNotFoundError as error:
        raise UsageError(f"export needs the package {error.name}: pip install 'gomin-triton[export]'") from None

    config_class, export = {
        "gan": (GANConfig, pipeline.export_gan),
        "diffusion": (DiffusionConfig, pipeline.export_diffusion),
    }[kind]
    overrides = read_config_file(config, config_class) if config else {}
    exported = export(ckpt, repository, overrides, key, say=lambda line: typer.echo(line, err=True))
    worst = exported.worst_case
    typer.echo(
        f"parity: {len(exported.cases)} cases against PyTorch in float64, largest difference {worst.max_abs_error:.1e} "
        f"(PyTorch in float32: {worst.torch_error:.1e})",
        err=True,
    )
    for model in exported.models:
        typer.echo(str(model))


def main() -> None:
    """Entry point."""
    run(app, "gomin-export", "nothing was placed")


if __name__ == "__main__":
    main()
