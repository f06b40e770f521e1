"""The options of gomin-client's commands for files and reports, in records; see `records`.

Typer reads the annotations at run time. Options of models are in `model_options`, options of mels in `mel_options`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gomin_client.errors import UsageError
from gomin_client.files import formats

INPUT_FORMS = (
    "files, folders (with their subfolders), patterns such as 'in/**/*.wav', .txt lists of paths, or - for standard "
    "input"
)
_MEL_FILES = f"Mel files ({', '.join(formats.readable(formats.MEL))})"
FORMAT_HELP = "Format of outputs whose name has no extension: "
_LIVE_FORMATS = " or ".join(formats.names(formats.AUDIO, stream=True))

AudioInputs = Annotated[list[str], typer.Argument(metavar="AUDIO", help=f"Audio of any sample rate: {INPUT_FORMS}.")]
MelInputs = Annotated[list[str], typer.Argument(metavar="MEL", help=f"{_MEL_FILES}: {INPUT_FORMS}.")]
Output = Annotated[
    list[str] | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="One file for each input; or a folder, in which subfolders are kept; or a pattern: 'out/**/*.wav' keeps "
        "subfolders, 'out/*.wav' does not, 'out/rec_*.wav' renames; or - for standard output. Default: beside the "
        "input.",
        show_default=False,
    ),
]
Channels = Annotated[
    str,
    typer.Option(
        metavar="mono|all",
        help="mono: mix all channels down to one, as GOMIN does; all: keep every channel, each processed on its own.",
    ),
]
Subtype = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=f"Encoding of audio files: {formats.subtypes_help()}.", show_default=False),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|FOLDER",
        help="Draw waveforms and mel spectrograms, originals above reconstructions: up to 8 files into one FILE.png, "
        "or each into a picture of its own in FOLDER; FILE.png with more files is the folder FILE.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON summary, and nothing else, to standard output.")]


@dataclass(frozen=True)
class BatchOptions:
    """How the files of a batch are processed."""

    jobs: Annotated[
        int,
        typer.Option(
            "--jobs",
            "-j",
            envvar="GOMIN_JOBS",
            metavar="NUMBER",
            min=1,
            max=64,
            help="Number of files that are processed at the same time.",
        ),
    ] = 2
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Skip inputs whose output exists; resumes an interrupted run."),
    ] = False
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse folders and patterns with files that would be left out."),
    ] = False
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Process part I of N of the files, from 1/N to N/N, for several processes or machines. Parts are "
            "balanced by bytes, and the same wherever the files are.",
            show_default=False,
        ),
    ] = None
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Append the result of every file to FILE, in JSON Lines; `gomin-client results` merges such files.",
            show_default=False,
        ),
    ] = None

    def settings(self) -> dict[str, Any]:
        """The fields of `BatchSettings` that these options set.

        Raises:
            UsageError: the shard is not I/N.
        """
        from gomin_client.batch.shards import Shard

        return {
            "parallel": self.jobs,
            "skip_existing": self.skip_existing,
            "strict": self.strict,
            "shard": None if self.shard is None else Shard.parse(self.shard),
            "results": self.results,
        }


@dataclass(frozen=True)
class QuietReportOptions:
    """What is printed."""

    as_json: Json = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.")] = False


@dataclass(frozen=True)
class ReportOptions(QuietReportOptions):
    """What is printed, by commands that use a server."""

    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print how the server spent its time, from its own statistics.")
    ] = False


@dataclass(frozen=True)
class AudioOutputOptions:
    """Where audio is written to, and how."""

    output: Output = None
    extension: Annotated[
        str,
        typer.Option("--format", "-f", metavar="NAME", help=FORMAT_HELP + ", ".join(formats.names(formats.AUDIO))),
    ] = "wav"
    subtype: Subtype = None
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help=f"With -o -: write while the audio is being computed, as --format {_LIVE_FORMATS}. Standard input is "
            "read as it arrives: audio, compressed formats with PyAV; for synthesize, frames of little-endian float32 "
            "without a header.",
        ),
    ] = False

    @property
    def format(self) -> str:
        """The extension of outputs whose name has none.

        Raises:
            UsageError: not a format that can be written, or not as a stream.
        """
        return formats.named(self.extension, formats.AUDIO, stream=self.stream).extension


Force = Annotated[bool, typer.Option("--force", help="Accept audio far beyond full scale.")]


@dataclass(frozen=True)
class RecordingOptions:
    """What is kept of recordings that are reconstructed."""

    trim: Annotated[
        bool,
        typer.Option(
            "--trim/--no-trim", help="Cut the result to the input's length, or keep whole frames as GOMIN does."
        ),
    ] = True
    channels: Channels = "mono"


@dataclass(frozen=True)
class ReconstructionOptions(RecordingOptions):
    """Trimming and checks of recordings that are reconstructed."""

    force: Force = False


def all_channels(channels: str) -> bool:
    """Whether --channels asks for every channel.

    Raises:
        UsageError: it is neither mono nor all.
    """
    if channels not in ("mono", "all"):
        raise UsageError(f"--channels {channels}: expected mono or all")
    return channels == "all"
