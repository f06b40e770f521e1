"""The options of gomin-gateway; see `gomin_client.cli.records`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gomin_client.cli.model_options import ConnectionOptions
from gomin_gateway.settings import ApiKeys, Limits

RETRY_FOR_S = 5.0


@dataclass(frozen=True)
class ServerConnectionOptions(ConnectionOptions):
    """How the model server is reached; a person does not wait for minutes."""

    retry_for: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Time to keep retrying when the model server goes away during a request, in seconds; 0: no retries.",
        ),
    ] = RETRY_FOR_S


@dataclass(frozen=True)
class AddressOptions:
    """Where the gateway listens."""

    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all networks (IPv4), :: for IPv6.")
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option(metavar="NUMBER", min=0, max=65535, help="Port; 0 for any free one.")] = 8080


@dataclass(frozen=True)
class ServingOptions:
    """How requests are served."""

    in_flight: Annotated[
        int, typer.Option(metavar="NUMBER", min=1, max=64, help="Number of windows of one request that are in flight.")
    ] = 2
    log_json: Annotated[bool, typer.Option("--log-json", help="Write log lines as JSON.")] = False


@dataclass(frozen=True)
class StaticOptions:
    """The page as a folder, instead of a gateway."""

    static: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Start no gateway, but write the page and the models of --url local:DIRECTORY into this folder. Any "
            "web host can serve it: models run in the browser.",
            show_default=False,
        ),
    ] = None
    onnxruntime_web: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="For --static: the npm package onnxruntime-web, a .tgz file or unpacked. Default: npm fetches it.",
            show_default=False,
        ),
    ] = None
    webgpu: Annotated[
        bool,
        typer.Option("--webgpu", help="For --static: let the page compute on GPUs, too (27 MB more; experimental)."),
    ] = False


@dataclass(frozen=True)
class CallerOptions:
    """Who may call."""

    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Ask callers for a key, in the header Authorization: Bearer KEY. The file has one key in each line.",
        ),
    ] = None
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Let pages of this origin call the gateway, as https://example.org; repeatable; '*' for all. "
            "Default: only its own.",
            show_default=False,
        ),
    ] = None

    def keys(self) -> ApiKeys:
        """The keys.

        Raises:
            UsageError: see `ApiKeys.from_file`.
        """
        return ApiKeys() if self.api_key_file is None else ApiKeys.from_file(self.api_key_file)


@dataclass(frozen=True)
class LimitOptions:
    """What the gateway takes."""

    max_body: Annotated[
        float, typer.Option(metavar="MB", min=0.001, help="Largest body of a request, in megabytes.")
    ] = Limits.body_bytes / 1e6
    max_audio: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.1, help="Longest audio of a request, all channels together, in seconds."),
    ] = Limits.audio_s
    max_concurrent: Annotated[
        int, typer.Option(metavar="NUMBER", min=1, max=64, help="Requests served at a time; others get status 429.")
    ] = Limits.concurrent
    deadline: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Time for one HTTP request, upload and all, in seconds.")
    ] = Limits.deadline_s
    idle_timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.1, help="Time to wait for a client that neither sends nor reads."),
    ] = Limits.idle_s
    drain: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="Time for requests in progress when the gateway is stopped."),
    ] = Limits.drain_s

    def build(self) -> Limits:
        """The limits."""
        return Limits(
            body_bytes=round(1e6 * self.max_body),
            audio_s=self.max_audio,
            concurrent=self.max_concurrent,
            deadline_s=self.deadline,
            idle_s=self.idle_timeout,
            drain_s=self.drain,
        )
