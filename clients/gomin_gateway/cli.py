"""gomin-gateway: the command line."""

from __future__ import annotations

import importlib.util
from typing import Annotated

import typer

from gomin_client import DEFAULT_URL
from gomin_client.cli import options as o
from gomin_client.cli.console import Version, echo, run
from gomin_client.cli.records import with_records
from gomin_client.errors import UsageError
from gomin_gateway.options import AddressOptions, CallerOptions, LimitOptions, ServerConnectionOptions

_PACKAGES = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "websockets": "websockets",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}

app = typer.Typer(name="gomin-gateway", pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
@with_records
def serve(
    *,
    url: o.Url = None,
    address: AddressOptions,
    callers: CallerOptions,
    limits: LimitOptions,
    in_flight: Annotated[
        int, typer.Option(metavar="NUMBER", min=1, max=64, help="Number of windows of one request that are in flight.")
    ] = 2,
    log_json: Annotated[bool, typer.Option("--log-json", help="Write log lines as JSON.")] = False,
    connection: ServerConnectionOptions,
    _version: Version = False,
) -> None:
    """Serve GOMIN vocoders to people: HTTP and WebSocket, in front of model servers or a model repository.

    Examples:

    gomin-gateway --url grpc://localhost:8001

    gomin-gateway --url local:model_repository --port 9000 --api-key-file keys.txt
    """
    _require_packages()
    keys, bounds = callers.keys(), limits.build()
    from gomin_gateway.app import make_app
    from gomin_gateway.backend import Backend
    from gomin_gateway.server import listen, log_to_stderr
    from gomin_gateway.server import run as run_server
    from gomin_gateway.service import Service

    backend = Backend(url or [DEFAULT_URL], connection.build(), in_flight)
    service = Service(backend, bounds, keys)
    made = make_app(service, callers.cors_origin or ())
    listener = listen(address.host, address.port)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host

    def started() -> None:
        echo(f"gomin-gateway: http://{shown}:{port} serves the models of {backend.url}", err=True)

    log_to_stderr(as_json=log_json)
    run_server(made, service, listener, started)


def _require_packages() -> None:
    """Fail before anything is started.

    Raises:
        UsageError: a package of the extra is missing.
    """
    missing = [package for module, package in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(f"gomin-gateway needs {', '.join(missing)}: pip install 'gomin-triton[gateway]'")


def main() -> None:
    """Entry point."""
    run(app, "gomin-gateway", lambda: "the gateway was not started")


if __name__ == "__main__":
    main()
