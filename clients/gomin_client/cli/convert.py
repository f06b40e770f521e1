"""`gomin-client convert`: the options of GOMIN's own program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from gomin_client import DEFAULT_URL
from gomin_client.cli import options as o
from gomin_client.cli.mel_options import MelReadingOptions, MelSettingsOptions
from gomin_client.cli.model_options import ModelOptions, Seed
from gomin_client.cli.records import with_records
from gomin_client.cli.run import Vocoding, run_batch
from gomin_client.errors import UsageError
from gomin_client.files.formats import AUDIO, MEL

_INPUT, _OUTPUT = ("-i", "--input_files"), ("-o", "--output", "--output_files")


class ListsOfFiles(TyperCommand):
    """A command that takes several files after one -i or -o, as GOMIN's own program does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values."""
        spread: list[str] = []
        option, values = None, 0
        for word in args:
            if word in (*_INPUT, *_OUTPUT):
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


@dataclass(frozen=True)
class GominOptions:
    """Inputs and outputs in the spelling of GOMIN's own program, and its options that have no meaning here."""

    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help=f"Audio or mel files: {o.INPUT_FORMS}.", show_default=False),
    ] = None
    input_files: Annotated[
        list[str] | None,
        typer.Option(*_INPUT, metavar="PATH", help="Input files, as GOMIN's own program takes them."),
    ] = None
    output: Annotated[
        list[str] | None,
        typer.Option(*_OUTPUT, metavar="PATH", help="Output, as in the other commands. Default: outputs/."),
    ] = None
    model_path: Annotated[
        str | None,
        typer.Option(
            "-p", "--model_path", metavar="PATH", help="A checkpoint in GOMIN's own program; use gomin-export instead."
        ),
    ] = None
    device: Annotated[
        str | None,
        typer.Option("-d", "--device", metavar="NAME", help="A device in GOMIN's own program; the server has its own."),
    ] = None

    def check(self) -> None:
        """Refuse the options that have no meaning here.

        Raises:
            UsageError: one of them was given.
        """
        if self.model_path is not None:
            raise UsageError(
                f"-p {self.model_path}: checkpoints are exported once, with `gomin-export gan --ckpt …` or "
                "`gomin-export diffusion --ckpt …`, and then served; choose the server with --url, or run in-process "
                "with --url local:DIRECTORY"
            )
        if self.device is not None:
            raise UsageError(f"-d {self.device}: models run where the server runs them; choose the server with --url")


@dataclass(frozen=True)
class ConvertModelOptions(ModelOptions):
    """The model; it is not needed if all that is made are mels."""

    url: Annotated[
        list[str] | None,
        typer.Option(
            "--url",
            envvar="GOMIN_URL",
            metavar="URL",
            help=f"Address of the model, as in the other commands. Default: {DEFAULT_URL}; if there is only audio to "
            "be analyzed, a server is asked only if this option is on the command line.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class ConvertAudioOptions(o.RecordingOptions):
    """How audio is read, made and written."""

    subtype: o.Subtype = None
    seed: Seed = None


@with_records
def convert(
    *,
    ctx: typer.Context,
    files: GominOptions,
    model: ConvertModelOptions,
    mel: MelSettingsOptions,
    mels: MelReadingOptions,
    audio: ConvertAudioOptions,
    batch: o.BatchOptions,
    report: o.ReportOptions,
) -> None:
    """Do what the extensions of inputs and outputs imply, with the options of GOMIN's own program.

    Audio to audio is reconstructed, audio to a mel analyzed, a mel to audio synthesized.

    Examples:

    gomin-client convert -m gan -i a.wav b.wav -o x.wav y.wav

    gomin-client convert -i 'inputs/**/*.wav' -o 'outputs/**/*.pt'
    """
    from gomin_client.batch.outputs import ANALYZE, Naming, plan_batch
    from gomin_client.batch.tasks import BatchSettings

    files.check()
    settings = BatchSettings(
        trim=audio.trim,
        seed=audio.seed,
        force=mels.force,
        reading=mels.build(),
        all_channels=o.all_channels(audio.channels),
        subtype=audio.subtype,
        **batch.settings(),
    )
    inputs = [*(files.inputs or []), *(files.input_files or [])]
    naming = Naming(settings.extension, label=model.model)
    plan = plan_batch(inputs, files.output or ["outputs/"], [AUDIO, MEL], naming)
    url = ctx.get_parameter_source("url")
    named = url is not None and url.name == "COMMANDLINE"
    is_needed = named or any(job.task != ANALYZE for job in plan.jobs)
    run_batch(plan, settings, Vocoding(model if is_needed else None, mel.given()), report)
