"""HTTP requests with a deadline for the whole answer and a limit on its size, over connections that are kept."""

from __future__ import annotations

import io
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import Any

from gomin_client.transports.forking import renew_in_children

CONNECT_TIMEOUT_S = 10.0
_PIECE = 1 << 20  # bytes read at a time


@dataclass(frozen=True)
class Answer:
    """An HTTP response.

    Attributes:
        status: its status code.
        headers: names in lower case → values.
        body: its content.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Requests to one server; thread-safe. Connections are kept and reused."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None = None) -> None:
        """Connect at the first request.

        Args:
            host: name or address of the server.
            port: its port.
            context: settings for TLS; None for no TLS.
        """
        self._host = host
        self._port = port
        self._context = context
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Begin without connections: the inherited ones are the parent's; see `Forkable`."""
        for connection in (*self._idle, *self._busy):
            connection.forget()
        self._lock = threading.Lock()
        self._idle = []
        self._busy = set()

    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout_s: float, most_bytes: int
    ) -> Answer:
        """Send a request and read the answer.

        Args:
            method: "GET" or "POST".
            path: the path of the URL, beginning with a slash.
            headers: sent unchanged.
            body: may be empty.
            timeout_s: deadline of the whole answer, in seconds.
            most_bytes: maximum size of its body.

        Raises:
            TimeoutError: the deadline has passed.
            OSError: the connection was refused or reset, or TLS failed.
            IncompleteError: the answer ended early.
            HTTPException: the answer is not HTTP.
            ValueError: the answer is larger than `most_bytes`.
        """
        connection = self._taken()
        try:
            connection.send_request(method, path, body, headers, time.monotonic() + timeout_s)
            response = connection.getresponse()
            answer = Answer(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                _body(response, most_bytes),
            )
        except BaseException:  # an interrupt too: the rest of the answer must not be read by the next request
            with self._lock:
                self._busy.discard(connection)
            connection.close()
            raise
        with self._lock:
            self._busy.discard(connection)
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close all connections; requests in flight end with an error."""
        with self._lock:
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for connection in idle:
            connection.close()
        for connection in busy:
            connection.abort()

    def _taken(self) -> _Connection:
        """An idle connection that the server has not closed, or a new one."""
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if not connection.has_ended:
                    break
                connection.close()
            else:
                connection = _Connection(self._host, self._port, self._context)
            self._busy.add(connection)
        return connection


class IncompleteError(HTTPException):
    """A connection that was closed in the middle of an answer."""


class _Connection(HTTPConnection):
    """A connection, with or without TLS, whose answers have a deadline."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        super().__init__(host, port, timeout=CONNECT_TIMEOUT_S)
        self._context = context
        self._deadline = 0.0
        self._opened: socket.socket | None = None  # also while `sock` is None, since an answer will close it
        self._aborted = False

    @property
    def has_ended(self) -> bool:
        """For an idle connection: the server has closed it, or sent unexpected data."""
        if self.sock is None:
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def connect(self) -> None:
        self.timeout = min(CONNECT_TIMEOUT_S, _left(self._deadline))
        super().connect()
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)
        self._opened = self.sock
        if self._aborted:
            raise ConnectionAbortedError("closed")

    def send_request(self, method: str, path: str, body: bytes, headers: Mapping[str, str], deadline: float) -> None:
        self._deadline = deadline
        if self.sock is None:
            self.connect()
        self.sock.settimeout(_left(deadline))
        # a server that refuses a request may answer before it has read all of it, and close
        with suppress(BrokenPipeError):
            self.request(method, path, body or None, dict(headers))

    def response_class(self, sock: socket.socket, method: str) -> HTTPResponse:  # type: ignore[override]
        """Called by `getresponse`."""
        return HTTPResponse(_Incoming(sock, self._deadline), method=method)  # type: ignore[arg-type]

    def forget(self) -> None:
        """Close this process's copy of the socket; the connection itself stays open."""
        if self._opened is not None:
            with suppress(OSError):
                os.close(self._opened.detach())

    def abort(self) -> None:
        """End a request that another thread has in flight."""
        self._aborted = True
        if self._opened is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._opened, socket.SHUT_RDWR)


class _Incoming(io.RawIOBase):
    """What arrives at a socket before a deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._socket = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(_left(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def _body(response: HTTPResponse, most_bytes: int) -> bytes:
    announced = response.length
    if announced is not None and announced > most_bytes:
        raise ValueError(f"an answer of {announced} bytes; expected at most {most_bytes}")
    pieces: list[bytes] = []
    size = 0
    try:
        while piece := response.read(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > most_bytes:
                raise ValueError(f"an answer of more than {most_bytes} bytes")
    except IncompleteRead as error:  # in chunks
        raise IncompleteError(f"the answer ended after {size} bytes") from error
    if announced is not None and size < announced:
        raise IncompleteError(f"the answer ended after {size} of {announced} bytes")
    return b"".join(pieces)


def _left(deadline: float) -> float:
    """Seconds until a deadline."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left
