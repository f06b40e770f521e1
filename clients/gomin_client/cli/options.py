"""The options of gomin-client's commands, in records; see `records`. Typer reads the annotations at run time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gomin_client import DEFAULT_URL
from gomin_client.contract.choices import SAMPLERS, SCHEDULES
from gomin_client.errors import UsageError
from gomin_client.files import formats
from gomin_client.transports.connection import Connection, parse_headers

if TYPE_CHECKING:
    from gomin_client.inference.pinned import PinnedModel
    from gomin_client.sampling.settings import SamplerSettings

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
Url = Annotated[
    list[str] | None,
    typer.Option(
        envvar="GOMIN_URL",
        metavar="URL",
        help="Address of the model: grpc://HOST:PORT, http://HOST:PORT, HOST:PORT (gRPC), or local:DIRECTORY for a "
        "model repository that is run in-process; grpcs:// and https:// for TLS; dns:///NAME:PORT for all addresses of "
        f"a name. Several gRPC servers share the work. Default: {DEFAULT_URL}.",
        show_default=False,
    ),
]
Model = Annotated[
    str, typer.Option("--model", "-m", envvar="GOMIN_MODEL", metavar="NAME", help="gan, diffusion, or a model's name.")
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="NUMBER",
        help="Seed of a diffusion model's noise. Default: a fresh seed, which is printed.",
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


@dataclass(frozen=True)
class ConnectionOptions:
    """How a server is reached; see `Connection`."""

    wait: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Time to wait for the server and its model to become ready, in seconds."
        ),
    ] = Connection.wait_s
    retry_for: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Time to keep retrying when a server goes away or is unavailable, in seconds; 0: no retries.",
        ),
    ] = Connection.retry_for_s
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Deadline of one request, in seconds. Default: one minute, plus one minute per second of audio and "
            "denoiser step.",
            show_default=False,
        ),
    ] = None
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME: VALUE'",
            help="Header of every request (HTTP header, gRPC metadata), repeatable; @FILE reads one header per line.",
            show_default=False,
        ),
    ] = None
    ssl: Annotated[
        bool, typer.Option("--ssl", help="Use TLS for gRPC URLs whose scheme does not say so, such as dns:///.")
    ] = False
    ssl_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM file of the authorities that sign the servers' certificates."),
    ] = None
    ssl_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM file of this client's certificate.")] = None
    ssl_key: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM file of the private key of --ssl-cert.")] = (
        None
    )

    def build(self) -> Connection:
        """The connection settings.

        Raises:
            UsageError: see `Connection` and `parse_headers`.
        """
        return Connection(
            wait_s=self.wait,
            retry_for_s=self.retry_for,
            timeout_s=self.timeout,
            headers=parse_headers(self.header or []),
            tls=self.ssl,
            ca=self.ssl_ca,
            certificate=self.ssl_cert,
            key=self.ssl_key,
        )


@dataclass(frozen=True)
class SamplingOptions:
    """The sampling chain of a diffusion model; the model decides about the settings that are not given."""

    sampler: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Sampler of a diffusion model: {SAMPLERS}. Default: the model's (ddpm as released).",
            show_default=False,
        ),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            help="Denoiser steps, of samplers that take any number. Default: the sampler's own.",
            show_default=False,
        ),
    ] = None
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Noise schedule that the model was trained with: {', '.join(SCHEDULES)}. Default: the model's "
            "(linear as released).",
            show_default=False,
        ),
    ] = None
    eta: Annotated[
        float | None,
        typer.Option(metavar="0…1", help="Share of fresh noise in each ddim step. Default: 0.", show_default=False),
    ] = None
    timesteps: Annotated[
        str | None,
        typer.Option(
            metavar="T1,T2,…",
            help="The timestep of each denoiser step, such as 49,30,12,0, of samplers that take any number of steps. "
            "Default: evenly spaced.",
            show_default=False,
        ),
    ] = None

    def build(self) -> SamplerSettings | None:
        """The choices; None if there are none."""
        if self == SamplingOptions():
            return None
        from gomin_client.sampling.settings import SamplerSettings

        return SamplerSettings(self.sampler, self.steps, self.schedule, self.eta, self.timesteps)


@dataclass(frozen=True)
class RequestOptions:
    """A model, and the requests to it; see `Vocoder`."""

    url: Url = None
    model: Model = "gan"
    window: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="FRAMES",
            help="Mel frames per request; the result does not depend on it. Default: 512, or 10 times the model's halo "
            "if that is more.",
            show_default=False,
        ),
    ] = None
    in_flight: Annotated[
        int, typer.Option(metavar="NUMBER", min=1, max=64, help="Number of windows of one file that are in flight.")
    ] = 2

    def connect(self, connection: Connection, sampling: SamplerSettings | None = None) -> PinnedModel:
        """Connect to the model.

        Raises:
            GominError: see `Vocoder`.
        """
        from gomin_client.inference.pinned import PinnedModel
        from gomin_client.transports.registry import connect

        transport = connect(self.url or DEFAULT_URL, connection)
        return PinnedModel(transport, self.model, sampling, connection, self.window, self.in_flight)


@dataclass(frozen=True)
class ModelOptions(RequestOptions):
    """The model that vocodes; see `Vocoder`."""

    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    connection: ConnectionOptions = field(default_factory=ConnectionOptions)

    def open(self) -> PinnedModel:
        """Connect to the model.

        Raises:
            GominError: see `Vocoder`.
        """
        return self.connect(self.connection.build(), self.sampling.build())


def all_channels(channels: str) -> bool:
    """Whether --channels asks for every channel.

    Raises:
        UsageError: it is neither mono nor all.
    """
    if channels not in ("mono", "all"):
        raise UsageError(f"--channels {channels}: expected mono or all")
    return channels == "all"
