"""Commands of gomin-client that ask a server about itself, or test it under load; heavy imports wait until they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from gomin_client import DEFAULT_URL
from gomin_client.cli import options as o
from gomin_client.cli.records import with_records
from gomin_client.cli.wording import echo, to_json
from gomin_client.errors import GominError, Interrupted, ServerError

if TYPE_CHECKING:
    from gomin_client.tools.load_test import LoadResult
    from gomin_client.transports.base import ModelInfo


@with_records
def info(*, url: o.Url = None, connection: o.ConnectionOptions) -> None:
    """List the models of a server or repository, with their settings and versions.

    Example: gomin-client info --url http://server:8000
    """
    from gomin_client.transports.registry import connect

    transport = connect(url or DEFAULT_URL, connection.build())
    try:
        names = transport.models()
        if not names:
            raise ServerError(f"{transport.url} has no models; run gomin-export first")
        for name in names:
            _print_model(name, transport.describe(name))
    finally:
        transport.close()


def _print_model(name: str, described: ModelInfo) -> None:
    from gomin_client.contract.model import ModelContract

    echo(name)
    try:
        contract = ModelContract.from_parameters(name, described.parameters)
    except GominError as error:
        echo(f"  {error}")
        return
    for parameter, value in contract.to_parameters().items():
        echo(f"  {parameter.removeprefix('gomin.')}: {value}")
    if contract.max_frames is not None:
        echo(f"  max_frames: {contract.max_frames}")
    echo(f"  max_batch_size: {described.max_batch_size}")
    for version in described.versions:
        echo(f"  version {version}:")
        made = contract.provenance.get(version)
        if made is None:
            echo("    its config.pbtxt does not say where it comes from")
            continue
        echo(f"    checkpoint: sha256 {made.checkpoint_sha256}")
        if made.source:
            echo(f"    source: {made.source}")
        echo(f"    precision: {made.precision}")
        echo(f"    parity: {made.parity}")


@with_records
def bench(
    *,
    model: o.ModelOptions,
    concurrency: o.Concurrency = None,
    audio: o.AudioSeconds = 2.0,
    duration: o.Duration = 10.0,
    as_json: o.Json = False,
) -> None:
    """Measure a server under load: throughput, latencies, and the server's own statistics.

    Prints a line for each concurrency: seconds of audio per second; milliseconds in which 50, 95 and 99 % of the
    requests were answered; the server's means of the queueing time, of the computing time, and of the items in one
    call of the model. These statistics count all callers: use a server that has no others. The audio of a request, up
    to one minute, is one request to the server, unless --window sets another size.

    Examples:

    gomin-client bench --url grpc://server:8001

    gomin-client bench --url http://server:8000 --audio 10 -c 1 -c 8 --duration 60 --json
    """
    from gomin_client.tools import load_test

    results: list[LoadResult] = []
    with model.open() as opened:
        vocoder, mel = load_test.prepare(opened, model.window, audio)
        about = {"model": vocoder.model, "version": vocoder.version, "url": vocoder.url, "audio_s": audio}
        if not as_json:
            echo(f"{vocoder.model} {vocoder.version} at {vocoder.url}, {audio:g} s of audio per request")
        vocoder.synthesize(mel, force=True)  # opens connections, warms up
        if not as_json:
            echo(load_test.HEADER)
        try:
            for number in concurrency or [1, 2, 4, 8]:
                results.append(load_test.run_load(vocoder, mel, number, duration))
                if not as_json:
                    echo(load_test.row(results[-1]))
        except Interrupted as interrupted:
            interrupted.so_far = "the lines above are complete" if results else "no result was written"
            raise
        finally:
            if as_json and results:
                typer.echo(_to_json(results, **about, duration_s=duration))
    errors = [error for result in results for error in result.errors]
    if errors:
        echo(f"gomin-client: {len(errors)} requests failed; the first: {errors[0]}", err=True)
        raise typer.Exit(1)


def _to_json(results: list[LoadResult], **about: Any) -> str:
    return to_json(about | {"levels": [result.to_dict() for result in results]})
