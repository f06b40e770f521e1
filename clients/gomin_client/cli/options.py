"""The options that several of gomin-client's commands have; typer reads these at run time, on Python 3.10 too."""

# ruff: noqa: UP045
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from gomin_client import DEFAULT_URL
from gomin_client.contract.choices import MOST_CONCURRENT, SAMPLERS, SCHEDULES
from gomin_client.files import formats
from gomin_client.transports.connection import Connection, parse_headers

INPUT_FORMS = (
    "files, directories (with their subfolders), patterns such as 'in/**/*.wav', .txt lists of paths, "
    "or - for standard input"
)

AudioInputs = Annotated[list[str], typer.Argument(metavar="AUDIO", help=f"Audio of any sample rate: {INPUT_FORMS}.")]
_MEL_FILES = f"Mel files ({', '.join(formats.readable(formats.MEL))})"
MelInputs = Annotated[list[str], typer.Argument(metavar="MEL", help=f"{_MEL_FILES}: {INPUT_FORMS}.")]
Inputs = Annotated[
    Optional[list[str]],
    typer.Argument(metavar="INPUT", help=f"Audio or mel files: {INPUT_FORMS}.", show_default=False),
]
Output = Annotated[
    Optional[list[str]],
    typer.Option(
        "--output",
        "-o",
        help="A file for each input; or a directory, where subfolders are kept; or a pattern: 'out/**/*.wav' keeps "
        "subfolders, 'out/*.wav' does not, 'out/rec_*.wav' names; or - for standard output. Default: beside the input.",
        show_default=False,
    ),
]
Url = Annotated[
    Optional[list[str]],
    typer.Option(
        envvar="GOMIN_URL",
        help="Where the model runs: grpc://HOST:PORT, http://HOST:PORT, HOST:PORT (gRPC), or local:DIRECTORY for a "
        "model repository run in-process; grpcs:// and https:// for TLS; dns:///NAME:PORT for all addresses of a name. "
        f"Several gRPC servers share the work. Default: {DEFAULT_URL}.",
        show_default=False,
    ),
]
OptionalUrl = Annotated[
    Optional[list[str]],
    typer.Option(
        "--url",
        envvar="GOMIN_URL",
        help=f"Where the model runs, as in the other commands. Default: {DEFAULT_URL}; where there is only audio to be "
        "analyzed, no server is asked unless this stands on the command line.",
        show_default=False,
    ),
]
Model = Annotated[str, typer.Option("--model", "-m", envvar="GOMIN_MODEL", help="gan, diffusion, or a model's name.")]
SettingsUrl = Annotated[
    Optional[list[str]],
    typer.Option("--url", help="Take the mel settings from the model there, not the defaults.", show_default=False),
]
SettingsModel = Annotated[
    Optional[str],
    typer.Option("--model", "-m", help="Which model's mel settings to take, with --url.", show_default=False),
]
Trim = Annotated[
    bool, typer.Option("--trim/--no-trim", help="Cut to the input's length, or keep whole frames as GOMIN does.")
]
Seed = Annotated[
    Optional[int],
    typer.Option(help="Seed of a diffusion model's noise. Default: a fresh one, which is printed.", show_default=False),
]
Channels = Annotated[
    str, typer.Option(help="mono: mix down, as GOMIN does; all: keep every channel, each made on its own.")
]
Subtype = Annotated[
    Optional[str],
    typer.Option(help=f"Encoding of audio files: {formats.subtypes_help()}.", show_default=False),
]
_FORMAT = "Format of outputs whose name has no extension: {}."
AudioFormat = Annotated[
    str, typer.Option("--format", "-f", help=_FORMAT.format(", ".join(formats.names(formats.AUDIO))))
]
MelFormat = Annotated[str, typer.Option("--format", "-f", help=_FORMAT.format(", ".join(formats.names(formats.MEL))))]
Plot = Annotated[
    Optional[Path],
    typer.Option(
        help="PNG file for waveforms and mel spectrograms, originals above reconstructions (up to 8 files).",
        show_default=False,
    ),
]
Jobs = Annotated[
    int, typer.Option("--jobs", "-j", envvar="GOMIN_JOBS", min=1, max=64, help="Files that are worked on at a time.")
]
Stream = Annotated[
    bool,
    typer.Option(
        "--stream",
        help="With -o -: write while the audio is being computed, as --format "
        f"{' or '.join(formats.names(formats.AUDIO, stream=True))}. Standard input is read as it comes: WAV or "
        "AU audio; for synthesize bare frames of little-endian float32.",
    ),
]
SkipExisting = Annotated[
    bool,
    typer.Option("--skip-existing", help="Leave out inputs whose output is there: goes on with an interrupted run."),
]
Json = Annotated[bool, typer.Option("--json", help="Print a summary as JSON, and nothing else, to standard output.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show where the time went on the server, by its own statistics.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.")]
Convention = Annotated[
    str,
    typer.Option(
        "--mel-convention",
        help="What the mels' values are, if not GOMIN's: power, amplitude, db, ln-power, ln-amplitude, log10-power or "
        "log10-amplitude, of GOMIN's bands; they are converted.",
    ),
]
StftNorm = Annotated[
    str,
    typer.Option(
        "--stft-norm",
        help="With --mel-convention: window, if the STFT was divided by the root of the window's energy, as GOMIN's; "
        "none, if not, as librosa's.",
    ),
]
Transpose = Annotated[bool, typer.Option("--transpose", help="Mels are (frames, bands): turn them round.")]
Force = Annotated[bool, typer.Option("--force", help="Take mels whose values do not look like GOMIN's.")]
Concurrency = Annotated[
    Optional[list[int]],
    typer.Option(
        "--concurrency",
        "-c",
        min=1,
        max=MOST_CONCURRENT,
        help="Requests at a time; may be given several times. Default: 1, 2, 4 and 8.",
        show_default=False,
    ),
]
AudioSeconds = Annotated[float, typer.Option("--audio", metavar="SECONDS", help="Of audio, in each request.")]
Duration = Annotated[
    float,
    typer.Option(min=0, metavar="SECONDS", help="For each number of requests; those under way then are waited for."),
]
SampleRate = Annotated[
    Optional[int],
    typer.Option("--sample-rate", "--sample_rate", help="Of the mel, in Hz. Default: 24000.", show_default=False),
]
WinLength = Annotated[
    Optional[int],
    typer.Option("--win-length", "--win_length", help="Of the window, in samples. Default: 1024.", show_default=False),
]
HopLength = Annotated[
    Optional[int],
    typer.Option("--hop-length", "--hop_length", help="Between frames, in samples. Default: 256.", show_default=False),
]
NMels = Annotated[
    Optional[int], typer.Option("--n-mels", "--n_mels", help="Mel bands. Default: 128.", show_default=False)
]


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
        bool, typer.Option("--ssl", help="Use TLS for gRPC URLs whose scheme does not decide, such as dns:///.")
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
    """The sampling chain of a diffusion model; what is not given is left to the model."""

    sampler: Annotated[
        str | None,
        typer.Option(
            help=f"Sampler of a diffusion model: {', '.join(SAMPLERS)}. Default: the model's (ddpm as released).",
            show_default=False,
        ),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(help="Denoiser steps of ddim and dpm++. Default: the sampler's own.", show_default=False),
    ] = None
    schedule: Annotated[
        str | None,
        typer.Option(
            help=f"Noise schedule that the model was trained with: {', '.join(SCHEDULES)}. Default: the model's "
            "(linear as released).",
            show_default=False,
        ),
    ] = None
    eta: Annotated[
        float | None,
        typer.Option(help="Share of fresh noise in each ddim step, 0 to 1. Default: 0.", show_default=False),
    ] = None


@dataclass(frozen=True)
class VocodingOptions:
    """How a vocoder works; see `Vocoder`."""

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
    in_flight: Annotated[int, typer.Option(min=1, max=64, help="Windows of one file that are in flight at a time.")] = 2
    sampling: SamplingOptions = field(default_factory=SamplingOptions)

    def build(self) -> dict[str, Any]:
        """Keyword arguments of `Vocoder`."""
        return {"window": self.window, "in_flight": self.in_flight, **vars(self.sampling)}
