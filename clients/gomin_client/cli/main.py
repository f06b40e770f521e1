"""gomin-client: the command line. Commands check, call the library and print; imports wait until then."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from gomin_client import DEFAULT_URL
from gomin_client.cli import options as o
from gomin_client.cli import server
from gomin_client.cli.console import Version, run
from gomin_client.cli.process import Show, process
from gomin_client.cli.records import with_records
from gomin_client.errors import UsageError
from gomin_client.files import formats

if TYPE_CHECKING:
    from gomin_client.mel.scales import Reading

app = typer.Typer(
    name="gomin-client",
    help="Turn audio into mel spectrograms, mel spectrograms into audio, or both, through a GOMIN vocoder on a Triton "
    "server or in-process.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AUDIO_ONLY, MEL_ONLY, BOTH = ("audio",), ("mel",), ("audio", "mel")


@app.command()
@with_records
def analyze(
    *,
    connection: o.ConnectionOptions,
    inputs: o.AudioInputs,
    output: o.Output = None,
    url: o.SettingsUrl = None,
    model: o.SettingsModel = None,
    sample_rate: o.SampleRate = None,
    win_length: o.WinLength = None,
    hop_length: o.HopLength = None,
    n_mels: o.NMels = None,
    channels: o.Channels = "mono",
    extension: o.MelFormat = "npz",
    jobs: o.Jobs = 2,
    skip_existing: o.SkipExisting = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Turn recordings into mel spectrograms; no server is needed.

    The settings are those of GOMIN's released models, unless given, or taken from a model with --url.

    Examples:

    gomin-client analyze a.wav

    gomin-client analyze 'in/**/*.wav' -o 'mels/**/*.pt'
    """
    from gomin_client.batch.inputs import find_outputs, find_sources
    from gomin_client.batch.outputs import ANALYZE, Naming, plan

    if model and not url:
        raise UsageError(
            f"--model {model}: give --url too; without it no server is asked, and the settings are GOMIN's"
        )
    naming = Naming(_extension(extension, "mel"), label="", task=ANALYZE)
    planned = plan(find_sources(inputs, AUDIO_ONLY), find_outputs(output or []), naming)
    given = _given(sample_rate, win_length, hop_length, n_mels)
    process(
        planned,
        url=url,
        model=model or "gan",
        connection=connection.build(),
        given=given,
        channels=channels,
        extension=naming.extension,
        show=Show(quiet, False, as_json),
        skip_existing=skip_existing,
        parallel=jobs,
    )


@app.command()
@with_records
def synthesize(
    *,
    connection: o.ConnectionOptions,
    how: o.VocodingOptions,
    inputs: o.MelInputs,
    output: o.Output = None,
    url: o.Url = None,
    model: o.Model = "gan",
    seed: o.Seed = None,
    convention: o.Convention = "gomin",
    stft_norm: o.StftNorm = "window",
    transpose: o.Transpose = False,
    force: o.Force = False,
    subtype: o.Subtype = None,
    extension: o.AudioFormat = "wav",
    jobs: o.Jobs = 2,
    stream: o.Stream = False,
    skip_existing: o.SkipExisting = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Turn mel spectrograms into audio.

    Examples:

    gomin-client synthesize a.npz

    gomin-client synthesize mels/ -o out/ --model diffusion --seed 7

    my-tts --mel-frames | gomin-client synthesize - -o - --stream | aplay
    """
    from gomin_client.batch.inputs import find_outputs, find_sources
    from gomin_client.batch.outputs import SYNTHESIZE, Naming, plan

    naming = Naming(_live(extension) if stream else _extension(extension, "audio"), label=model, task=SYNTHESIZE)
    planned = plan(find_sources(inputs, MEL_ONLY), find_outputs(output or []), naming)
    process(
        planned,
        url=url or DEFAULT_URL,
        model=model,
        connection=connection.build(),
        how=how.build(),
        seed=seed,
        reading=_reading(convention, stft_norm, transpose, force),
        subtype=subtype,
        extension=naming.extension,
        show=Show(quiet, verbose, as_json),
        skip_existing=skip_existing,
        parallel=jobs,
        live=stream,
    )


@app.command()
@with_records
def reconstruct(
    *,
    connection: o.ConnectionOptions,
    how: o.VocodingOptions,
    inputs: o.AudioInputs,
    output: o.Output = None,
    url: o.Url = None,
    model: o.Model = "gan",
    trim: o.Trim = True,
    seed: o.Seed = None,
    channels: o.Channels = "mono",
    subtype: o.Subtype = None,
    extension: o.AudioFormat = "wav",
    plot: o.Plot = None,
    jobs: o.Jobs = 2,
    stream: o.Stream = False,
    skip_existing: o.SkipExisting = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Turn recordings into mel spectrograms and back.

    Examples:

    gomin-client reconstruct a.wav

    gomin-client reconstruct in/ -o out/ --url local:model_repository

    sox a.mp3 -t wav - | gomin-client reconstruct - -o - --stream | aplay
    """
    from gomin_client.batch.inputs import find_outputs, find_sources
    from gomin_client.batch.outputs import RECONSTRUCT, Naming, plan

    naming = Naming(_live(extension) if stream else _extension(extension, "audio"), label=model, task=RECONSTRUCT)
    planned = plan(find_sources(inputs, AUDIO_ONLY), find_outputs(output or []), naming)
    process(
        planned,
        url=url or DEFAULT_URL,
        model=model,
        connection=connection.build(),
        how=how.build(),
        trim=trim,
        seed=seed,
        channels=channels,
        subtype=subtype,
        extension=naming.extension,
        plot=plot,
        show=Show(quiet, verbose, as_json),
        skip_existing=skip_existing,
        parallel=jobs,
        live=stream,
    )


class _ListsOfFiles(TyperCommand):
    """Takes several files after one -i or -o, as GOMIN's own program does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values."""
        spread: list[str] = []
        option, values = None, 0
        for word in args:
            if word in ("-i", "--input_files", "-o", "--output_files", "--output"):
                option, values = word, 0
                spread.append(word)
                continue
            if word.startswith("-") and word != "-":
                option = None
            if option is not None:
                spread += [option] if values else []
                values += 1
            spread.append(word)
        return super().parse_args(ctx, spread)


@app.command(cls=_ListsOfFiles)
@with_records
def convert(
    *,
    ctx: typer.Context,
    connection: o.ConnectionOptions,
    how: o.VocodingOptions,
    inputs: o.Inputs = None,
    input_files: Annotated[
        Optional[list[str]],  # noqa: UP045 (typer reads this at run time, on Python 3.10 too)
        typer.Option("-i", "--input_files", help="Input files, as GOMIN's own program takes them."),
    ] = None,
    output: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("-o", "--output", "--output_files", help="As in the other commands. Default: outputs/."),
    ] = None,
    url: o.OptionalUrl = None,
    model: o.Model = "gan",
    model_path: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("-p", "--model_path", help="GOMIN's own program takes a checkpoint here; use gomin-export."),
    ] = None,
    device: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("-d", "--device", help="GOMIN's own program takes a device here; the server has its own."),
    ] = None,
    sample_rate: o.SampleRate = None,
    win_length: o.WinLength = None,
    hop_length: o.HopLength = None,
    n_mels: o.NMels = None,
    trim: o.Trim = True,
    seed: o.Seed = None,
    convention: o.Convention = "gomin",
    stft_norm: o.StftNorm = "window",
    transpose: o.Transpose = False,
    force: o.Force = False,
    channels: o.Channels = "mono",
    subtype: o.Subtype = None,
    jobs: o.Jobs = 2,
    skip_existing: o.SkipExisting = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Do what the extensions of inputs and outputs say, with the options of GOMIN's own program.

    Audio to audio is reconstructed, audio to a mel analyzed, a mel to audio synthesized.

    Examples:

    gomin-client convert -m gan -i a.wav b.wav -o x.wav y.wav

    gomin-client convert -i 'inputs/**/*.wav' -o 'outputs/**/*.pt'
    """
    from gomin_client.batch.inputs import find_outputs, find_sources
    from gomin_client.batch.outputs import ANALYZE, Naming, plan

    if model_path is not None:
        raise UsageError(
            f"-p {model_path}: checkpoints are exported once, with `gomin-export gan --ckpt …` or "
            "`gomin-export diffusion --ckpt …`, and then served; choose the server with --url, or run in-process with "
            "--url local:DIRECTORY"
        )
    if device is not None:
        raise UsageError(f"-d {device}: models run where the server runs them; choose the server with --url")
    planned = plan(
        find_sources([*(inputs or []), *(input_files or [])], BOTH),
        find_outputs(output or ["outputs/"]),
        Naming(".wav", label=model),
    )
    only_mels = all(job.task == ANALYZE for job in planned)
    source = ctx.get_parameter_source("url")
    asked = source is not None and source.name == "COMMANDLINE"
    process(
        planned,
        url=(url if asked else None) if only_mels else url or DEFAULT_URL,
        model=model,
        connection=connection.build(),
        how=how.build(),
        given=_given(sample_rate, win_length, hop_length, n_mels),
        trim=trim,
        seed=seed,
        reading=_reading(convention, stft_norm, transpose, force),
        channels=channels,
        subtype=subtype,
        show=Show(quiet, verbose, as_json),
        skip_existing=skip_existing,
        parallel=jobs,
    )


@app.command()
def compare(
    reference: Annotated[Path, typer.Argument(help="A recording, or a folder of recordings.")],
    other: Annotated[Path, typer.Argument(help="What is compared with it; of folders, files of the same name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Tell how far recordings are apart, in three measures.

    Mel: mean absolute difference of the mel spectrograms in dB. STFT: spectral convergence and log magnitude distance,
    means over three resolutions (Yamamoto et al. 2020). SNR: power over that of the difference, in dB; a vocoder that
    is not told the phase has a low one.

    Examples:

    gomin-client compare a.wav a_gan.wav

    gomin-client compare in/ out/ --json
    """
    from gomin_client.tools.compare import compare_paths, table

    comparisons = compare_paths(reference, other)
    if as_json:
        import json

        typer.echo(json.dumps([comparison.to_dict() for comparison in comparisons], indent=2, ensure_ascii=False))
    else:
        typer.echo(table(comparisons))
    problems = [comparison for comparison in comparisons if comparison.problem]
    for comparison in problems:
        typer.echo(f"gomin-client: {comparison.problem}", err=True)
    if problems:
        raise typer.Exit(1)


@app.callback()
def _global(_version: Version = False) -> None:
    pass


def _extension(name: str, kind: str) -> str:
    """A format's name as an extension."""
    return formats.named(name, kind).extension


def _live(name: str) -> str:
    """A format that can be written while it is being made, as an extension."""
    return formats.named(name, formats.AUDIO, stream=True).extension


def _reading(convention: str, stft_norm: str, transpose: bool, force: bool) -> Reading:
    from gomin_client.mel.scales import Reading

    if stft_norm not in ("window", "none"):
        raise UsageError(f"--stft-norm {stft_norm}: expected window or none")
    return Reading(convention, stft_norm == "window", transpose, force)


def _given(
    sample_rate: int | None, win_length: int | None, hop_length: int | None, n_mels: int | None
) -> dict[str, int]:
    settings = {"sample_rate": sample_rate, "win_length": win_length, "hop_length": hop_length, "n_mels": n_mels}
    return {name: value for name, value in settings.items() if value is not None}


def _interrupted() -> str:
    return (
        "files reported so far are complete, the others were not written; the same command with --skip-existing "
        "goes on from here"
    )


app.command()(server.info)
app.command()(server.bench)


def main() -> None:
    """Entry point."""
    run(app, "gomin-client", _interrupted)


if __name__ == "__main__":
    main()
