"""The options of a model: where it runs, how it is reached, its sampling chain and the steps of it; see `records`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gomin_client import DEFAULT_URL
from gomin_client.contract.choices import SAMPLERS, SCHEDULES
from gomin_client.errors import UsageError
from gomin_client.transports.connection import Connection, parse_headers

if TYPE_CHECKING:
    from gomin_client.batch.outputs import FileJob
    from gomin_client.batch.tasks import Steps
    from gomin_client.cli.options import ReportOptions
    from gomin_client.inference.steps import SteppedModel
    from gomin_client.sampling.settings import SamplerSettings

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

    def connect(self, connection: Connection, sampling: SamplerSettings | None = None) -> SteppedModel:
        """Connect to the model.

        Raises:
            GominError: see `Vocoder`.
        """
        from gomin_client.inference.steps import SteppedModel
        from gomin_client.transports.registry import connect

        transport = connect(self.url or DEFAULT_URL, connection)
        return SteppedModel(transport, self.model, sampling, connection, self.window, self.in_flight)


@dataclass(frozen=True)
class ModelOptions(RequestOptions):
    """The model that vocodes; see `Vocoder`."""

    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    connection: ConnectionOptions = field(default_factory=ConnectionOptions)

    def open(self) -> SteppedModel:
        """Connect to the model.

        Raises:
            GominError: see `Vocoder`.
        """
        return self.connect(self.connection.build(), self.sampling.build())


_NEEDS = "Needs gomin_diffusion_stream (gomin-export diffusion --stream) over gRPC or local:; a file is one request."


@dataclass(frozen=True)
class ChainOptions:
    """The seed of a diffusion model's chain, and what to do with its steps."""

    seed: Seed = None
    progress: Annotated[
        bool,
        typer.Option("--progress", help=f"Show each step of a diffusion model's chain, of a single file. {_NEEDS}"),
    ] = False
    stop_after: Annotated[
        int | None,
        typer.Option(
            metavar="STEP",
            min=1,
            help=f"Keep what this step of a diffusion model's chain predicts for its end, and end it there. {_NEEDS}",
            show_default=False,
        ),
    ] = None

    def steps(self, jobs: Sequence[FileJob], model: ModelOptions, report: ReportOptions, *, live: bool) -> Steps | None:
        """How chains are followed; None if they need not be.

        Raises:
            UsageError: nothing could be shown; windows are asked for; audio is wanted before the mel is known.
        """
        from gomin_client.batch.tasks import Steps

        if not self.progress and self.stop_after is None:
            return None
        if live:
            raise UsageError("--progress and --stop-after need the whole mel: give a file instead of --stream")
        if model.window is not None:
            raise UsageError(f"--window {model.window}: with --progress or --stop-after, a file is one request")
        if model.in_flight != RequestOptions.in_flight:
            raise UsageError(f"--in-flight {model.in_flight}: with --progress or --stop-after, a file is one request")
        if report.verbose:
            raise UsageError("--verbose: with --progress or --stop-after, there are no windows that it could report on")
        if self.progress and len(jobs) != 1:
            raise UsageError(f"--progress shows the steps of a single file; there are {len(jobs)}")
        if self.progress and (report.quiet or report.as_json):
            raise UsageError(f"--progress with {'--quiet' if report.quiet else '--json'}: nothing would be shown")
        return Steps(self.stop_after, report=self.progress)
