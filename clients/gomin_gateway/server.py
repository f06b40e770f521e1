"""The process of the gateway: its socket, its log, its end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from gomin_client.errors import GominError
from gomin_client.files import atomic
from gomin_client.interrupts import HANGUP, signals_in_use
from gomin_gateway.access import LogFormatter
from gomin_gateway.live import LARGEST_MESSAGE
from gomin_gateway.service import Service, logger

_LOGGERS = ("gomin_gateway", "gomin_client", "uvicorn")
_POLL_S = 0.05


class GatewayServer(uvicorn.Server):
    """uvicorn, which lets WebSocket sessions end before it stops, and leaves signals to its caller."""

    def __init__(self, app: FastAPI, service: Service) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="websockets-sansio",
                loop="asyncio",
                lifespan="on",
                access_log=False,
                log_config=None,
                server_header=False,
                ws_max_size=LARGEST_MESSAGE,
                ws_per_message_deflate=False,  # samples do not compress
                # a client whose messages have to wait does not see our pings either
                ws_ping_timeout=None,
                timeout_graceful_shutdown=max(1, round(service.limits.drain_s)),
            )
        )
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is in flight, for a limited time; then end."""
        for server in self.servers:
            server.close()
        ends_at = asyncio.get_running_loop().time() + self._service.limits.drain_s
        while self._service.is_busy and not self.force_exit and asyncio.get_running_loop().time() < ends_at:
            await asyncio.sleep(_POLL_S)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: `run` does it."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address.

    Raises:
        GominError: it cannot.
    """
    try:
        ((family, _, _, _, address), *_) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server(address[:2], family=family, backlog=512)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GominError(f"--host {host} --port {port}: cannot listen there: {reason}") from error


def run(app: FastAPI, service: Service, listener: socket.socket, started: Callable[[], None]) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; a second one ends at once.

    Args:
        app: see `make_app`.
        service: the same that the app has.
        listener: see `listen`.
        started: called when requests are served.
    """
    server = GatewayServer(app, service)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        for number in signals_in_use():
            loop.add_signal_handler(number, stop, number)
        serving = loop.create_task(server.serve([listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(_POLL_S)
        if server.started:
            started()
        await serving

    def stop(number: int) -> None:
        if server.should_exit and number == HANGUP:
            return  # the system and a shell may each report that the terminal was closed
        if server.should_exit:  # not by way of Python's end, which waits for threads, and they for the model server
            atomic.discard_unfinished()
            os._exit(128 + number)
        logger.info("stopping: %d requests in progress", service.taken)
        server.should_exit = True

    asyncio.run(serve())


def log_to_stderr(*, as_json: bool) -> None:
    """Send the log lines of the gateway, the client and uvicorn to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter(as_json=as_json))
    handler.addFilter(_is_news)
    for name in _LOGGERS:
        named = logging.getLogger(name)
        named.handlers = [handler]
        named.propagate = False
        named.setLevel(logging.WARNING if name == "uvicorn" else logging.INFO)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line says what no other says: an answer that is broken off has a line of our own."""
    return not record.getMessage().startswith("ASGI callable returned without completing response")
