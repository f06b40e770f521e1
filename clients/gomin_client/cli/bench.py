"""`gomin-client bench`: a server under load; heavy imports wait until it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gomin_client.cli import options as o
from gomin_client.cli.console import echo, to_json
from gomin_client.cli.model_options import ModelOptions
from gomin_client.cli.records import with_records
from gomin_client.contract.choices import MOST_CONCURRENT
from gomin_client.errors import Interrupted

if TYPE_CHECKING:
    from gomin_client.tools.load_test import LoadResult

Concurrency = Annotated[
    list[int] | None,
    typer.Option(
        "--concurrency",
        "-c",
        metavar="NUMBER",
        min=1,
        max=MOST_CONCURRENT,
        help="Number of requests in flight; repeatable. Default: 1, 2, 4 and 8.",
        show_default=False,
    ),
]
AudioSeconds = Annotated[
    float, typer.Option("--audio", metavar="SECONDS", help="Duration of the audio of each request, in seconds.")
]
Duration = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Duration of the test at each concurrency, in seconds; requests in flight at its end are waited for.",
    ),
]


@with_records
def bench(
    *,
    model: ModelOptions,
    concurrency: Concurrency = None,
    audio: AudioSeconds = 2.0,
    duration: Duration = 10.0,
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
        load_test.send(vocoder, mel)  # opens connections, warms up
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
