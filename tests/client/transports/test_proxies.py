"""Proxies of the environment: never in the way to this machine, and named if they are in the way elsewhere."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from gomin_client import Connection
from gomin_client.errors import ServerError
from gomin_client.transports.proxies import Proxy, grpc_proxy
from gomin_client.transports.registry import connect
from tests.support import RunningServer

ONCE = Connection(retry_for_s=0)
VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")


@dataclass
class FakeProxy:
    """Listens, notes the first line of every request, and closes."""

    url: str
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def proxy() -> Iterator[FakeProxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fake = FakeProxy(f"http://user:secret@127.0.0.1:{listener.getsockname()[1]}")

        def listen() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    fake.requests.append(connection.recv(1000).decode().partition("\r\n")[0])

        thread = threading.Thread(target=listen)
        thread.start()
        yield fake
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
@pytest.mark.parametrize(
    "url",
    [
        "grpc://localhost:{}",
        "grpc://127.0.0.1:{}",
        "grpc://127.0.0.2:{}",
        "grpc://[::1]:{}",
        "dns:///localhost:{}",
        "http://localhost:{}",
        "grpc://127.0.0.1:{},grpc://127.0.0.2:{}",
    ],
)
def test_loopback_addresses_are_reached_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch, proxy: FakeProxy, closed_port: int, url: str, variable: str
) -> None:
    monkeypatch.setenv(variable, proxy.url)

    urls = [one.format(closed_port) for one in url.split(",")]

    with closing(connect(urls, ONCE)) as transport, pytest.raises(ServerError) as caught:
        transport.describe("gomin_gan")

    assert proxy.requests == []
    assert variable not in str(caught.value)


@pytest.mark.server
def test_a_server_on_this_machine_answers(
    monkeypatch: pytest.MonkeyPatch, proxy: FakeProxy, server: RunningServer
) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, proxy.url)

    for url in (server.grpc, server.http):
        with closing(connect(url, ONCE)) as transport:
            assert "gomin_gan" in transport.models()
    assert proxy.requests == []


@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_a_proxy_in_the_way_is_named(monkeypatch: pytest.MonkeyPatch, proxy: FakeProxy, scheme: str) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)

    with closing(connect(f"{scheme}://triton.invalid:8001", ONCE)) as transport, pytest.raises(ServerError) as caught:
        transport.models()

    assert proxy.requests[0] == "CONNECT triton.invalid:8001 HTTP/1.1"
    message = str(caught.value)
    assert "which the environment variable http_proxy sets" in message
    assert "add triton.invalid to no_proxy to connect without a proxy" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("environment", "variable", "exceptions"),
    [
        ({"http_proxy": "http://p:1"}, "http_proxy", "no_proxy"),
        ({"http_proxy": "http://p:1", "https_proxy": "http://q:1"}, "https_proxy", "no_proxy"),
        ({"http_proxy": "http://p:1", "grpc_proxy": "http://r:1"}, "grpc_proxy", "no_proxy"),
        ({"http_proxy": "http://p:1", "no_proxy": "other.org"}, "http_proxy", "no_proxy"),
        (
            {"http_proxy": "http://p:1", "no_grpc_proxy": "b.org", "no_proxy": "a.org"},
            "http_proxy",
            "no_grpc_proxy",
        ),
        ({"http_proxy": "http://p:1", "no_proxy": "a.org"}, None, ""),
        ({"http_proxy": "http://p:1", "no_proxy": "localhost, .org"}, None, ""),
        ({"http_proxy": "", "all_proxy": "http://p:1", "HTTP_PROXY": "http://p:1"}, None, ""),
    ],
)
def test_variables_as_grpc_reads_them(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], variable: str | None, exceptions: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    found = grpc_proxy("triton.a.org")

    assert found == (None if variable is None else Proxy(variable, environment[variable], exceptions))


def test_ranges_of_addresses_are_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://p:1")
    monkeypatch.setenv("no_proxy", "10.0.0.0/8,fd00::/8")

    assert grpc_proxy("10.1.2.3") is None
    assert grpc_proxy("fd00::3") is None
    assert grpc_proxy("192.0.2.1") is not None
