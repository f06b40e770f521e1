"""gomin-gateway: the command line."""

from __future__ import annotations

import importlib.util
from dataclasses import fields
from typing import Any

import typer

from gomin_client import DEFAULT_URL
from gomin_client.cli.console import Version, echo, run
from gomin_client.cli.model_options import Url
from gomin_client.cli.records import with_records
from gomin_client.errors import UsageError
from gomin_gateway.options import (
    AddressOptions,
    CallerOptions,
    LimitOptions,
    ServerConnectionOptions,
    ServingOptions,
    StaticOptions,
)

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
    url: Url = None,
    address: AddressOptions,
    callers: CallerOptions,
    limits: LimitOptions,
    serving: ServingOptions,
    connection: ServerConnectionOptions,
    page: StaticOptions,
    _version: Version = False,
) -> None:
    """Serve GOMIN vocoders to people: HTTP and WebSocket, in front of model servers or a model repository.

    Examples:

    gomin-gateway --url grpc://localhost:8001

    gomin-gateway --url local:model_repository --port 9000 --api-key-file keys.txt

    gomin-gateway --url local:model_repository --static site
    """
    _require_packages()
    if page.static is not None:
        for record in (address, callers, limits, connection, serving):
            _refuse(record, "has no effect with --static")
        _write_page(url or [], page)
        return
    _refuse(page, "needs --static")
    keys, bounds = callers.keys(), limits.build()
    from gomin_gateway.app import make_app
    from gomin_gateway.backend import Backend
    from gomin_gateway.server import listen, log_to_stderr
    from gomin_gateway.server import run as run_server
    from gomin_gateway.service import Service

    backend = Backend(url or [DEFAULT_URL], connection.build(), serving.in_flight)
    service = Service(backend, bounds, keys)
    made = make_app(service, callers.cors_origin or ())
    listener = listen(address.host, address.port)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host

    def started() -> None:
        echo(f"gomin-gateway: http://{shown}:{port} serves the models of {backend.url}", err=True)

    log_to_stderr(as_json=serving.log_json)
    run_server(made, service, listener, started)


def _write_page(urls: list[str], options: StaticOptions) -> None:
    """Write the page as a folder.

    Raises:
        GominError: see `static.write`; the URL is not a repository, or there are options of a gateway.
    """
    from gomin_client.transports.connection import Connection
    from gomin_client.transports.local import LocalTransport
    from gomin_client.transports.registry import connect_once
    from gomin_gateway import onnxruntime_web, static

    if not urls:
        raise UsageError("--static needs the models themselves: --url local:DIRECTORY")
    transport = connect_once(urls, Connection())
    if not isinstance(transport, LocalTransport):
        raise UsageError(f"{transport.url}: --static needs the models themselves: --url local:DIRECTORY")
    folder = options.static
    assert folder is not None
    static.check_target(folder)
    if options.onnxruntime_web is None:
        echo(f"gomin-gateway: npm fetches {onnxruntime_web.PACKAGE} {onnxruntime_web.VERSION} (33 MB)", err=True)
    written = static.write(folder, transport, options.onnxruntime_web, webgpu=options.webgpu)
    for warning in written.warnings:
        echo(f"gomin-gateway: warning: {warning}", err=True)
    echo(f"{folder}: a page with {', '.join(written.models)}, {written.megabytes:.1f} MB, for any web host")


def _refuse(record: Any, why: str) -> None:
    """Refuse options that would have no effect.

    Args:
        record: a group of options.
        why: what is wrong about one that differs from its default.

    Raises:
        UsageError: one does.
    """
    for field in fields(record):
        if getattr(record, field.name) != field.default:
            raise UsageError(f"--{field.name.replace('_', '-')} {why}")


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
