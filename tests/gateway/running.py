"""Gateways for tests: on a real socket, in this process, so that a test can see inside."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from gomin_client import Connection, MockModel, MockTransport
from gomin_client.transports.base import Transport
from gomin_gateway.app import make_app
from gomin_gateway.backend import Backend
from gomin_gateway.server import GatewayServer, listen
from gomin_gateway.service import Service
from gomin_gateway.settings import ApiKeys, Limits

WAIT_S = 120.0  # for what happens at once on an idle machine
# Between windows of different sizes or batches: each is within 1e-5 of the exact waveform.
TWO_ROUNDINGS = 2e-5
FAST = Connection(retry_for_s=0)


@dataclass
class Answer:
    """An answer that has been read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def assert_problem(self, status: int, kind: str, *words: str) -> dict[str, Any]:
        """It is a problem document with these words, and no word of Python's or of the command line's."""
        assert self.status == status, (self.status, self.body[:500])
        assert self.headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = self.json
        assert list(problem) == ["type", "title", "status", "detail", "instance"]
        assert (problem["type"], problem["status"]) == (f"urn:gomin:problem:{kind}", status)
        assert problem["instance"] == f"urn:uuid:{self.headers['x-request-id']}"
        for word in words:
            assert word in problem["detail"], problem["detail"]
        for word in ("force=True", "`Vocoder", "`Connection", " --", "Traceback", "/tmp", "grpc://", "http://", "None"):
            assert word not in problem["detail"], problem["detail"]
        return problem


@dataclass
class Gateway:
    """A running gateway."""

    port: int
    service: Service
    server: GatewayServer
    loop: asyncio.AbstractEventLoop = field(repr=False)
    thread: threading.Thread = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)

    @contextmanager
    def asking(self, path: str, body: bytes) -> Iterator[http.client.HTTPConnection]:
        """A POST request whose answer has not been read; `answer_of` reads it."""
        with closing(self.connect()) as connection:
            connection.request("POST", path, body)
            yield connection

    def call(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, **query: object
    ) -> Answer:
        """Send a request; the parameters in `query` have `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in query.items()}
        with closing(self.connect()) as connection:
            connection.request(method, f"{path}?{urlencode(named)}" if named else path, body, headers or {})
            return answer_of(connection)

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None, **query: object) -> Answer:
        return self.call("POST", path, body, headers, **query)

    def count(self, status: int, route: str = "/v1/reconstruct", method: str = "POST") -> float:
        """Number of requests with a status so far."""
        value = self.service.metrics.requests.labels(route, method, str(status))._value.get()
        return float(value)

    def wait_until_idle(self) -> None:
        wait_for(lambda: self.service.taken == 0)

    def pass_time(self, seconds: float) -> None:
        """Let the clock of its deadlines go ahead, so that those that have begun end when a test says so."""

        def go_ahead() -> None:
            now = self.loop.time
            self.loop.time = lambda: now() + seconds  # type: ignore[method-assign]

        self.loop.call_soon_threadsafe(go_ahead)


def answer_of(connection: http.client.HTTPConnection) -> Answer:
    """The answer to the request that was sent."""
    response = connection.getresponse()
    found = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, found, response.read())


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    ends_at = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends_at, "it has not happened"
        time.sleep(0.01)


@contextmanager
def running(
    urls: Sequence[str] | Transport,
    limits: Limits | None = None,
    keys: ApiKeys | None = None,
    origins: Sequence[str] = (),
    connection: Connection = FAST,
) -> Iterator[Gateway]:
    """A gateway in a thread of this process."""
    listener = listen("127.0.0.1", 0)
    started = threading.Event()
    made: list[Gateway] = []

    def work() -> None:
        async def serve() -> None:
            service = Service(Backend(urls, connection), limits or Limits(), keys or ApiKeys())
            server = GatewayServer(make_app(service, origins), service)
            made.append(Gateway(listener.getsockname()[1], service, server, asyncio.get_running_loop(), thread))
            serving = asyncio.create_task(server.serve([listener]))
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            started.set()
            await serving

        asyncio.run(serve())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert started.wait(WAIT_S)
    try:
        yield made[0]
    finally:
        made[0].server.should_exit = True
        thread.join(WAIT_S)
        assert not thread.is_alive()


def multipart(content: bytes, name: str = "a.flac") -> tuple[bytes, dict[str, str]]:
    """A file as a form sends it: body and headers."""
    head = f'--XX\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    return head + content + b"\r\n--XX--\r\n", {"Content-Type": "multipart/form-data; boundary=XX"}


class Gated:
    """A GAN that answers with silence, once it is let.

    Attributes:
        transport: leads to it.
    """

    def __init__(self, max_frames: int | None = None) -> None:
        self._open = threading.Semaphore(0)
        self._is_free = False
        model = MockModel.vocoder(self._answer)
        bound = {} if max_frames is None else {"gomin.max_frames": str(max_frames)}
        self.transport = MockTransport({"gomin_gan": MockModel(model.answer, {**model.parameters, **bound})})

    @property
    def calls(self) -> int:
        return len(self.transport.calls)

    def let(self, number: int) -> None:
        """Let this number of requests be answered."""
        self._open.release(number)

    def let_all(self) -> None:
        """Let all be answered, from now on."""
        self._is_free = True
        self._open.release(100)

    def _answer(self, mel: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self._is_free:
            assert self._open.acquire(timeout=WAIT_S)
        return np.zeros((len(mel), 256 * mel.shape[-1]), np.float32)
