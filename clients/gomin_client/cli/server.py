"""Commands of gomin-client that ask a server about itself, or put it to the test; imports wait until they run."""

from __future__ import annotations

import json
from typing import Any

import typer

from gomin_client import DEFAULT_URL
from gomin_client.cli import options as o
from gomin_client.cli.records import with_records
from gomin_client.errors import GominError, Interrupted, ServerError


@with_records
def info(*, url: o.Url = None, connection: o.ConnectionOptions) -> None:
    """List the models of a server or repository, and what they say about themselves.

    Example: gomin-client info --url http://server:8000
    """
    from gomin_client.contract.model import ModelContract
    from gomin_client.transports.registry import connect

    transport = connect(url or DEFAULT_URL, connection.build())
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


@with_records
def bench(
    *,
    connection: o.ConnectionOptions,
    how: o.VocodingOptions,
    url: o.Url = None,
    model: o.Model = "gan",
    concurrency: o.Concurrency = None,
    audio: o.AudioSeconds = 2.0,
    duration: o.Duration = 10.0,
    as_json: o.Json = False,
) -> None:
    """Put a load on a server: throughput, latencies, and what its own statistics say.

    A line for each number of requests at a time: seconds of audio made per second; milliseconds in which 50, 95, 99 %
    of the requests were answered; the server's averages of waiting, of computing, and of items in a call of the model.
    These count all callers: let it be the only one. The audio of a request, a minute at most, is one request to the
    server, unless --window says how to cut it.

    Examples:

    gomin-client bench --url grpc://server:8001

    gomin-client bench --url http://server:8000 --audio 10 -c 1 -c 8 --duration 60 --json
    """
    from gomin_client.tools import load_test
    from gomin_client.vocoder import Vocoder

    results: list[load_test.LoadResult] = []
    about: dict[str, Any] = {}
    options = {**how.build(), "connection": connection.build()}
    vocoder, mel = load_test.open_vocoder(
        lambda window: Vocoder(url or DEFAULT_URL, model, **{**options, "window": window}), how.window, audio
    )
    with vocoder:
        if not as_json:
            typer.echo(f"{vocoder.model} {vocoder.version} at {vocoder.url}, {audio:g} s of audio a request")
        about = {"model": vocoder.model, "version": vocoder.version, "url": vocoder.url, "audio_s": audio}
        vocoder.synthesize(mel, force=True)  # opens connections, warms up
        if not as_json:
            typer.echo(load_test.HEADER)
        try:
            for number in concurrency or [1, 2, 4, 8]:
                results.append(load_test.run_load(vocoder, mel, number, duration))
                if not as_json:
                    typer.echo(load_test.row(results[-1]))
        except Interrupted as interrupted:
            interrupted.so_far = "the lines above are complete" if results else "no result was written"
            raise
        finally:
            if as_json and results:
                about |= {"duration_s": duration, "levels": [result.to_dict() for result in results]}
                typer.echo(json.dumps(about, indent=2, ensure_ascii=False))
    errors = [error for result in results for error in result.errors]
    if errors:
        typer.echo(f"gomin-client: {len(errors)} requests failed; the first: {errors[0]}", err=True)
        raise typer.Exit(1)
