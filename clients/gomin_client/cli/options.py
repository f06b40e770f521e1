"""The options that several of gomin-client's commands have; typer reads these at run time, on Python 3.10 too."""

# ruff: noqa: UP045
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional, get_type_hints

import typer

from gomin_client import DEFAULT_URL
from gomin_client.contract.choices import MOST_CONCURRENT, SAMPLERS, SCHEDULES
from gomin_client.transports.connection import Connection, parse_headers

INPUT_FORMS = (
    "files, directories (with their subfolders), patterns such as 'in/**/*.wav', .txt lists of paths, "
    "or - for standard input"
)

AudioInputs = Annotated[list[str], typer.Argument(metavar="AUDIO", help=f"Audio of any sample rate: {INPUT_FORMS}.")]
MelInputs = Annotated[list[str], typer.Argument(metavar="MEL", help=f"Mel files (.npz, .npy, .pt): {INPUT_FORMS}.")]
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
    typer.Option(
        help="Of audio files: 16, 24 or float (.wav), 16 or 24 (.flac), vorbis or opus (.ogg).", show_default=False
    ),
]
AudioFormat = Annotated[
    str, typer.Option("--format", "-f", help="Format where the output's name does not tell: wav, flac, ogg, mp3.")
]
MelFormat = Annotated[
    str, typer.Option("--format", "-f", help="Format where the output's name does not tell: npz, npy, pt.")
]
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
        help="With -o -: write while it is being made, as --format wav or raw. Standard input is read as it comes: WAV "
        "or AU audio; for synthesize bare frames of little-endian float32.",
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

# Options that several commands take as one argument: name of a parameter → its type and option, and its default.
Group = dict[str, tuple[Any, Any]]

_CONNECTION: Group = {
    "wait": (
        Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Wait for the server and its model to be ready.")],
        Connection.wait_s,
    ),
    "retry_for": (
        Annotated[
            float,
            typer.Option(
                "--retry-for",
                min=0,
                metavar="SECONDS",
                help="Go on trying for so long when the server goes away or is unavailable; 0: do not.",
            ),
        ],
        Connection.retry_for_s,
    ),
    "timeout": (
        Annotated[
            Optional[float],
            typer.Option(
                metavar="SECONDS",
                help="Of one request. Default: a minute, and a minute for each second of audio, times the steps.",
                show_default=False,
            ),
        ],
        None,
    ),
    "header": (
        Annotated[
            Optional[list[str]],
            typer.Option(
                metavar="'NAME: VALUE'",
                help="Sent with every request (HTTP header, gRPC metadata); @FILE reads one from each line.",
                show_default=False,
            ),
        ],
        None,
    ),
    "ssl": (
        Annotated[bool, typer.Option("--ssl", help="Use TLS for gRPC URLs that do not say so, such as dns:///.")],
        False,
    ),
    "ssl_ca": (
        Annotated[
            Optional[Path],
            typer.Option(help="PEM file of the authorities that servers' certificates are signed by.", metavar="FILE"),
        ],
        None,
    ),
    "ssl_cert": (
        Annotated[Optional[Path], typer.Option(help="PEM file of this client's certificate.", metavar="FILE")],
        None,
    ),
    "ssl_key": (
        Annotated[Optional[Path], typer.Option(help="PEM file of its private key.", metavar="FILE")],
        None,
    ),
}

_VOCODING: Group = {
    "window": (
        Annotated[
            Optional[int],
            typer.Option(
                min=1,
                metavar="FRAMES",
                help="Mel frames that are vocoded at a time; the result does not depend on it. Default: 512, or 10 "
                "times the model's halo if that is more.",
                show_default=False,
            ),
        ],
        None,
    ),
    "in_flight": (
        Annotated[int, typer.Option(min=1, max=64, help="Windows of one file that are under way at a time.")],
        2,
    ),
    "sampler": (
        Annotated[
            Optional[str],
            typer.Option(
                help=f"Of a diffusion model: {', '.join(SAMPLERS)}. Default: the model's, ddpm as released.",
                show_default=False,
            ),
        ],
        None,
    ),
    "steps": (
        Annotated[
            Optional[int],
            typer.Option(help="Denoiser steps of ddim and dpm++. Default: the sampler's own.", show_default=False),
        ],
        None,
    ),
    "schedule": (
        Annotated[
            Optional[str],
            typer.Option(
                help=f"Noise schedule that the model was trained with: {', '.join(SCHEDULES)}. Default: the model's, "
                "linear as released.",
                show_default=False,
            ),
        ],
        None,
    ),
    "eta": (
        Annotated[
            Optional[float],
            typer.Option(help="Share of fresh noise in ddim's steps, 0 to 1. Default: 0.", show_default=False),
        ],
        None,
    ),
}


def _connection(given: dict[str, Any]) -> Connection:
    return Connection(
        wait_s=given["wait"],
        retry_for_s=given["retry_for"],
        timeout_s=given["timeout"],
        headers=parse_headers(given["header"] or []),
        tls=given["ssl"],
        ca=given["ssl_ca"],
        certificate=given["ssl_cert"],
        key=given["ssl_key"],
    )


# argument of a command → its options, and what makes it of them
_GROUPS: dict[str, tuple[Group, Callable[[dict[str, Any]], Any]]] = {
    "connection": (_CONNECTION, _connection),
    "how": (_VOCODING, dict),
}


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of its arguments `connection`, a `Connection`, and `how`, a dict for `Vocoder`."""
    types = get_type_hints(command, include_extras=True)
    wanted = inspect.signature(command).parameters
    groups = {argument: group for argument, group in _GROUPS.items() if argument in wanted}

    @functools.wraps(command)
    def with_options(**arguments: Any) -> None:
        for argument, (group, build) in groups.items():
            arguments[argument] = build({name: arguments.pop(name) for name in group})
        command(**arguments)

    # typer reads both: the order and defaults in the one, the types in the other
    own = [parameter.replace(annotation=types[name]) for name, parameter in wanted.items() if name not in groups]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for group, _ in groups.values()
        for name, (kind, default) in group.items()
    ]
    with_options.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *added]}
    return with_options
