"""HTTP: deadlines of whole answers, connections that are kept, closed or lost, interrupts."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gomin_client import Connection, DeadlineError, UsageError, Vocoder
from gomin_client.transports.http_client import HttpClient, IncompleteError
from tests.client.transports.malicious import Reply, http_server, silence
from tests.support import BIN

MEL = np.zeros((128, 5), np.float32)


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[HttpClient]:
    """A client of a server that does anything with a connection."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        client = HttpClient("127.0.0.1", listener.getsockname()[1])
        yield client
        client.close()


def get(client: HttpClient, timeout_s: float = 60, most_bytes: int = 1000) -> bytes:
    return client.request("GET", "/", {}, b"", timeout_s, most_bytes).body


def request_of(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        received = connection.recv(1000)
        if not received:
            return b""
        data += received
    return data


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"])
def test_a_server_that_trickles_does_not_outlive_the_deadline(begin: bytes) -> None:
    """Every wait for it is short, the whole answer has no end."""

    def serve(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(begin)
        try:
            while True:
                connection.sendall(b"x")
                threading.Event().wait(0.05)
        except OSError:
            pass

    with server(serve) as client, pytest.raises(TimeoutError):
        get(client, timeout_s=0.5, most_bytes=10**9)


def test_connections_are_kept_and_one_that_the_server_closed_is_replaced() -> None:
    opened: list[int] = []
    closed = threading.Event()

    def serve(connection: socket.socket) -> None:
        opened.append(connection.fileno())
        for _ in range(2):
            if request_of(connection):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        connection.close()
        closed.set()

    with server(serve) as client:
        assert [get(client) for _ in range(2)] == [b"ok", b"ok"]
        assert len(opened) == 1
        assert closed.wait(60)
        assert get(client) == b"ok"
        assert len(opened) == 2


def test_a_refusal_before_the_request_was_read_is_heard() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass
        connection.close()

    with server(serve) as client:
        assert client.request("POST", "/", {}, bytes(10**7), 60, 1000).status == 413


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", IncompleteError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n12345", IncompleteError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", ValueError),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1001), ValueError),
    ],
)
def test_answers_that_are_too_short_or_too_long(answer: bytes, error: type[Exception]) -> None:
    def serve(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(answer)
        connection.close()

    with server(serve) as client, pytest.raises(error):
        get(client)


@contextmanager
def silent_server() -> Iterator[tuple[str, threading.Event]]:
    """A server that does not answer inferences, and an event that is set once it has been asked."""
    asked, ended = threading.Event(), threading.Event()

    def infer(_: dict[str, Any]) -> Reply:
        asked.set()
        ended.wait(300)
        return silence(5)

    with http_server(infer) as url:
        try:
            yield url, asked
        finally:
            ended.set()


def test_closing_ends_requests_in_flight() -> None:
    with silent_server() as (url, asked), Vocoder(url) as vocoder:
        threading.Thread(target=lambda: (asked.wait(60), vocoder.close()), daemon=True).start()
        with pytest.raises(UsageError, match="has been closed"):
            vocoder.synthesize(MEL)


def test_a_deadline() -> None:
    with (
        silent_server() as (url, _),
        Vocoder(url, connection=Connection(timeout_s=0.3)) as vocoder,
        pytest.raises(DeadlineError, match=r"did not answer within 0\.3 s"),
    ):
        vocoder.synthesize(MEL)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupts_during_a_request(tmp_path: Path, number: signal.Signals, status: int) -> None:
    np.save(tmp_path / "a.npy", MEL)
    with silent_server() as (url, asked):
        command = [BIN / "gomin-client", "synthesize", tmp_path / "a.npy", "--url", url]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert asked.wait(60)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)

    assert process.returncode == status
    assert stderr.startswith("gomin-client: interrupted")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupts_while_a_server_is_described(number: signal.Signals) -> None:
    """In the main thread: nothing of it is lost in a library's loop."""
    asked = threading.Event()

    def serve(connection: socket.socket) -> None:
        request_of(connection)
        asked.set()
        threading.Event().wait(60)

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=lambda: serve(listener.accept()[0]), daemon=True).start()
        command = [BIN / "gomin-client", "info", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert asked.wait(60)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)

    assert process.returncode == 128 + number
    assert stderr.startswith("gomin-client: interrupted")
