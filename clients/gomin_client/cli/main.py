"""gomin-client: the command line. Commands check, call the library and print; heavy imports wait until they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gomin_client.cli import options as o
from gomin_client.cli.bench import bench
from gomin_client.cli.calibrate import calibrate
from gomin_client.cli.console import Version, echo, run, to_json
from gomin_client.cli.convert import ListsOfFiles, convert
from gomin_client.cli.info import info
from gomin_client.cli.mel_options import MelModelOptions, MelOutputOptions, MelReadingOptions, MelSettingsOptions
from gomin_client.cli.model_options import ChainOptions, ModelOptions
from gomin_client.cli.records import with_records
from gomin_client.cli.results import results
from gomin_client.cli.run import Vocoding, run_batch
from gomin_client.errors import UsageError
from gomin_client.files.formats import AUDIO, MEL

app = typer.Typer(
    name="gomin-client",
    help="Turn audio into mel spectrograms, mel spectrograms into audio, or both, through a GOMIN vocoder on a Triton "
    "server or in-process.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
@with_records
def analyze(
    *,
    inputs: o.AudioInputs,
    output: MelOutputOptions,
    model: MelModelOptions,
    mel: MelSettingsOptions,
    channels: o.Channels = "mono",
    force: o.Force = False,
    batch: o.BatchOptions,
    report: o.QuietReportOptions,
) -> None:
    """Turn recordings into mel spectrograms; no server is needed.

    The mel settings are those of GOMIN's released models, unless options give others or --url names a model to take
    them from.

    Examples:

    gomin-client analyze a.wav

    gomin-client analyze 'in/**/*.wav' -o 'mels/**/*.pt'
    """
    from gomin_client.batch.outputs import ANALYZE, Naming, plan_batch
    from gomin_client.batch.tasks import BatchSettings

    vocoding = Vocoding(model.build(), mel.given())
    naming = Naming(output.format, label="", task=ANALYZE)
    settings = BatchSettings(
        force=force,
        all_channels=o.all_channels(channels),
        extension=naming.extension,
        **batch.settings(),
    )
    plan = plan_batch(inputs, output.output or [], [AUDIO], naming)
    run_batch(plan, settings, vocoding, report)


@app.command()
@with_records
def synthesize(
    *,
    inputs: o.MelInputs,
    output: o.AudioOutputOptions,
    model: ModelOptions,
    chain: ChainOptions,
    mels: MelReadingOptions,
    batch: o.BatchOptions,
    report: o.ReportOptions,
) -> None:
    """Turn mel spectrograms into audio.

    Examples:

    gomin-client synthesize a.npz

    gomin-client synthesize mels/ -o out/ --model diffusion --seed 7

    my-tts --mel-frames | gomin-client synthesize - -o - --stream | aplay
    """
    from gomin_client.batch.outputs import SYNTHESIZE, Naming, plan_batch
    from gomin_client.batch.tasks import BatchSettings

    naming = Naming(output.format, label=model.model, task=SYNTHESIZE)
    plan = plan_batch(inputs, output.output or [], [MEL], naming)
    settings = BatchSettings(
        seed=chain.seed,
        force=mels.force,
        reading=mels.build(),
        subtype=output.subtype,
        extension=naming.extension,
        live=output.stream,
        steps=chain.steps(plan.jobs, model, report, live=output.stream),
        **batch.settings(),
    )
    run_batch(plan, settings, Vocoding(model), report)


@app.command()
@with_records
def reconstruct(
    *,
    inputs: o.AudioInputs,
    output: o.AudioOutputOptions,
    model: ModelOptions,
    chain: ChainOptions,
    recording: o.ReconstructionOptions,
    plot: o.Plot = None,
    batch: o.BatchOptions,
    report: o.ReportOptions,
) -> None:
    """Turn recordings into mel spectrograms and back.

    Examples:

    gomin-client reconstruct a.wav

    gomin-client reconstruct in/ -o out/ --url local:model_repository

    sox a.mp3 -t wav - | gomin-client reconstruct - -o - --stream | aplay
    """
    from gomin_client.batch.outputs import RECONSTRUCT, Naming, plan_batch
    from gomin_client.batch.tasks import BatchSettings

    naming = Naming(output.format, label=model.model, task=RECONSTRUCT)
    plan = plan_batch(inputs, output.output or [], [AUDIO], naming)
    settings = BatchSettings(
        trim=recording.trim,
        seed=chain.seed,
        force=recording.force,
        all_channels=o.all_channels(recording.channels),
        subtype=output.subtype,
        extension=naming.extension,
        plot=plot is not None,
        live=output.stream,
        steps=chain.steps(plan.jobs, model, report, live=output.stream),
        **batch.settings(),
    )
    run_batch(plan, settings, Vocoding(model), report, plot)


app.command(cls=ListsOfFiles)(convert)


@app.command()
def compare(
    reference: Annotated[Path, typer.Argument(help="A recording, or a folder of recordings.")],
    others: Annotated[
        list[Path],
        typer.Argument(
            metavar="OTHER...",
            help="The recording, or the folder of files of the same names, to compare; or several of them.",
            show_default=False,
        ),
    ],
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Write a listening report: a page FILE.html with all it needs, or a FOLDER, for many recordings.",
            show_default=False,
        ),
    ] = None,
    note: Annotated[
        str, typer.Option(metavar="TEXT", help="Text at the head of the listening report.", show_default=False)
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Measure the distance between recordings, in three ways, and write listening reports.

    Mel: mean absolute difference of the mel spectrograms, in dB. STFT: spectral convergence and log magnitude distance,
    means over three resolutions (Yamamoto et al. 2020). SNR: power of the reference over the power of the difference,
    in dB; a vocoder does not know the phase, and has a low one.

    Examples:

    gomin-client compare a.wav a_gan.wav

    gomin-client compare in/ out/ --json

    gomin-client compare in/ out_gan/ out_diffusion/ --html report.html
    """
    from gomin_client.cli.progress import ProgressBar
    from gomin_client.tools.compare import compare_paths, table

    if note and html is None:
        raise UsageError("--note is for a listening report: give --html too")
    with ProgressBar() as bar:
        if html is None:
            comparisons = compare_paths(reference, *others, begin=bar.begin, visit=lambda _: bar.advance())
        else:
            from gomin_client.report.build import compare_with_report

            comparisons = compare_with_report(
                html, reference, *others, note=note, begin=bar.begin, visit=lambda _: bar.advance()
            )
    if as_json:
        typer.echo(to_json([comparison.to_dict() for comparison in comparisons]))
    else:
        for line in table(comparisons).splitlines():
            echo(line)
        if html is not None:
            echo(str(html))
    problems = dict.fromkeys(comparison.problem for comparison in comparisons if comparison.problem)
    for problem in problems:
        echo(f"gomin-client: {problem}", err=True)
    if problems:
        raise typer.Exit(1)


app.command()(results)
app.command()(info)
app.command()(bench)
app.command()(calibrate)


@app.callback()
def _global(_version: Version = False) -> None:
    pass


def interrupted() -> str:
    """The message to a user who pressed Ctrl-C during a batch."""
    return (
        "files reported so far are complete, the others were not written; the same command with --skip-existing "
        "continues from here"
    )


def main() -> None:
    """Entry point."""
    run(app, "gomin-client", interrupted)


if __name__ == "__main__":
    main()
