"""gomin-client: the command line. Commands check, call the library and print; imports wait until then."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from gomin_client import DEFAULT_URL
from gomin_client.console import Version, run
from gomin_client.errors import GominError, ServerError, UsageError

app = typer.Typer(
    name="gomin-client",
    help="Reconstruct audio through a GOMIN vocoder, on a Triton server or in-process.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Url = Annotated[
    str,
    typer.Option(
        envvar="GOMIN_URL",
        help="Where the model runs: grpc://HOST:PORT, http://HOST:PORT, HOST:PORT (gRPC), or local:DIRECTORY for a "
        "model repository run in-process.",
    ),
]


@app.command()
def reconstruct(
    inputs: Annotated[list[Path], typer.Argument(help="Audio files, of any sample rate; mixed down to mono.")],
    output: Annotated[
        Optional[str],  # noqa: UP045 (typer reads this at run time, on Python 3.10 too)
        typer.Option("--output", "-o", help="Audio file, or a directory. Default: beside the input, as a_gan.wav."),
    ] = None,
    url: Url = DEFAULT_URL,
    model: Annotated[str, typer.Option("--model", "-m", help="gan, diffusion, or a model's name.")] = "gan",
    trim: Annotated[
        bool, typer.Option("--trim/--no-trim", help="Cut to the input's length, or keep whole frames as GOMIN does.")
    ] = True,
    seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Seed of a diffusion model's noise. Default: a fresh one, which is printed."),
    ] = None,
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="PNG file for mel spectrograms of originals and reconstructions (up to 8 files)."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Turn recordings into mel spectrograms and back.

    Examples:

    gomin-client reconstruct a.wav

    gomin-client reconstruct *.flac -o out/ --url local:model_repository
    """
    from gomin_client import plot as plots
    from gomin_client.batch import reconstruct_files
    from gomin_client.paths import check_extra, plan_outputs
    from gomin_client.vocoder import Vocoder, fresh_seed

    def say(line: str) -> None:
        if not quiet:
            typer.echo(line)

    outputs = plan_outputs(inputs, output, label=model)
    if plot is not None:
        plots.require_matplotlib()
        check_extra(plot, inputs, outputs, extension=".png")
        if len(inputs) > plots.MAX_COLUMNS:
            raise UsageError(f"--plot shows up to {plots.MAX_COLUMNS} files; there are {len(inputs)}")
    with Vocoder(url, model) as vocoder:
        if seed is not None and not vocoder.takes_seed:
            raise UsageError(f"model {vocoder.model} draws no noise: a seed has no effect on it")
        if vocoder.takes_seed and seed is None:
            seed = fresh_seed()
            say(f"seed {seed}")
        report = reconstruct_files(
            vocoder,
            list(zip(inputs, outputs, strict=True)),
            trim=trim,
            seed=seed,
            keep_mels=plot is not None,
            say=say,
            complain=lambda line: typer.echo(f"gomin-client: {line}", err=True),
        )
        if plot is not None and report.comparisons:
            plots.save(plot, report.comparisons, vocoder.contract.mel)
            say(str(plot))
    failed = len(report.failures)
    if len(inputs) > 1 and (failed or not quiet):
        typer.echo(f"{report.done} done, {failed} failed", err=failed > 0)
    if failed:
        # of a single file the kind of failure can be told, of many only that some failed
        raise typer.Exit(report.failures[0].exit_code if len(inputs) == 1 else 1)


@app.command()
def info(url: Url = DEFAULT_URL) -> None:
    """List the models of a server or repository, and what they say about themselves."""
    from gomin_client.contract import ModelContract
    from gomin_client.transports import connect

    transport = connect(url)
    try:
        names = transport.models()
        if not names:
            raise ServerError(f"{transport.url} has no models; run gomin-export first")
        for name in names:
            described = transport.describe(name)
            typer.echo(name)
            try:
                contract = ModelContract.from_parameters(name, described.parameters)
            except GominError as error:
                typer.echo(f"  {error}")
                continue
            for parameter, value in contract.to_parameters().items():
                typer.echo(f"  {parameter.removeprefix('gomin.')}: {value}")
            typer.echo(f"  max_batch_size: {described.max_batch_size}")
            for version in described.versions:
                typer.echo(f"  version {version}:")
                made = contract.provenance.get(version)
                if made is None:
                    typer.echo("    its config.pbtxt does not tell where it comes from")
                    continue
                typer.echo(f"    checkpoint: sha256 {made.checkpoint_sha256}")
                typer.echo(f"    precision: {made.precision}")
                typer.echo(f"    parity: {made.parity}")
    finally:
        transport.close()


@app.callback()
def _global(_version: Version = False) -> None:
    pass


def main() -> None:
    """Entry point."""
    run(app, "gomin-client", lambda: "files reported so far are complete, the others were not written")


if __name__ == "__main__":
    main()
