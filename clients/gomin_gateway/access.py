"""One log line and one count for each request; bodies that nobody reads; who may call."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gomin_client.cli.console import visible
from gomin_gateway.problems import ProblemError
from gomin_gateway.service import Service
from gomin_gateway.settings import ApiKeys
from gomin_gateway.tasks import Job

logger = logging.getLogger("gomin_gateway.access")

_RECORD = "gomin_gateway.record"  # key in the scope of a request
_GONE = 499  # status in logs and counters of a request whose caller went away
_METHODS = ("GET", "POST", "HEAD", "OPTIONS", "WEBSOCKET")  # others, which may be any word, are counted as one
_DISCARD_S = 5.0  # time to read on after a request was refused


@dataclass
class Record:
    """What is logged of a request.

    Attributes:
        id: names it in the log, in the header X-Request-Id and in problem documents.
        status: of the answer; 0 if there is none.
        model: name and version of the model.
        audio_s: duration of the audio, in seconds.
        is_gone: the caller went away.
        problem: kind of the problem; empty if there is none.
    """

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: int = 0
    model: str = ""
    audio_s: float = 0.0
    is_gone: bool = False
    problem: str = ""

    def add(self, job: Job | None) -> None:
        """Take over what is known of a job."""
        if job is not None:
            self.model, self.audio_s = job.model, job.seconds


def record_of(scope: Scope) -> Record:
    """The record of a request."""
    record: Record = scope[_RECORD]
    return record


class AccessLog:
    """ASGI middleware that logs and counts requests, and names them."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        record = scope[_RECORD] = Record()
        exchange = _Exchange(record, scope, receive, send, self._service.limits.body_bytes)
        began = time.monotonic()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except BaseException:
            record.status = record.status or 500
            raise
        finally:
            self._log(scope, record, time.monotonic() - began)

    def _log(self, scope: Scope, record: Record, seconds: float) -> None:
        status = _GONE if record.is_gone else record.status
        method = scope.get("method", "WEBSOCKET")
        route = getattr(scope.get("route"), "path", None) or "other"
        if scope["type"] == "websocket" and "endpoint" in scope:
            route = scope["path"]
        metrics = self._service.metrics
        metrics.requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        metrics.seconds.labels(route).observe(seconds)
        if record.audio_s:
            metrics.audio_seconds.labels(route).inc(record.audio_s)
        client = scope.get("client")
        facts = {
            "client": client[0] if client else "",
            "method": method,
            "path": scope["path"][:200],
            "status": status,
            "seconds": round(seconds, 3),
            "model": record.model,
            "audio_s": round(record.audio_s, 3),
            "problem": record.problem,
            "request": record.id,
        }
        logger.info("%s", _line(facts), extra={"facts": facts})


def _line(facts: dict[str, Any]) -> str:
    parts = [f"{facts['client']} {facts['method']} {facts['path']} {facts['status']} {facts['seconds']:.3f} s"]
    if facts["model"]:
        parts.append(f"{facts['model']}, {facts['audio_s']:.2f} s of audio")
    if facts["problem"]:
        parts.append(facts["problem"])
    return visible(" | ".join([*parts, facts["request"]]))


class _Exchange:
    """The messages of one request."""

    def __init__(self, record: Record, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        self._record = record
        self._receive = receive
        self._send = send
        self._most = most
        self._is_read = scope["type"] != "http"
        self._waits = (b"expect", b"100-continue") in scope["headers"]  # for a word before it sends a body

    async def receive(self) -> Message:
        message = await self._receive()
        self._waits = False
        self._is_read = self._is_read or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self._record.status = message["status"]
            added = [(b"x-request-id", self._record.id.encode()), (b"x-content-type-options", b"nosniff")]
            message["headers"] = [*message.get("headers", ()), *added]
            if message["status"] >= 400 and message["status"] != 408:
                await self._discard()
        elif kind == "websocket.accept":
            self._record.status = 101
        await self._send(message)

    async def _discard(self) -> None:
        """Read the rest of a refused body: a client that is still sending would not see the answer."""
        if self._waits:
            return
        read = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_S):
                while not self._is_read and read < self._most:
                    read += len((await self.receive()).get("body", b""))


def check_key(keys: ApiKeys, authorization: str | None) -> None:
    """Refuse a caller without a key.

    Args:
        keys: those that are accepted.
        authorization: the header.

    Raises:
        ProblemError: it has no key, or another one.
    """
    scheme, _, key = (authorization or "").partition(" ")
    if keys and not (scheme.lower() == "bearer" and keys.accept(key.strip())):
        detail = "send the header Authorization: Bearer KEY" if not key else "the API key is not known"
        raise ProblemError("unauthorized", detail, {"WWW-Authenticate": "Bearer"})


class LogFormatter(logging.Formatter):
    """Log lines as text, or as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """One line; of unexpected errors as text, several."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        level = record.levelname.lower()
        failure = self.formatException(record.exc_info) if record.exc_info else ""
        if self._as_json:
            facts = getattr(record, "facts", None) or {"message": record.getMessage()}
            return json.dumps({"time": at, "level": level, **facts, **({"exception": failure} if failure else {})})
        line = f"{at} {'' if level == 'info' else f'{level}: '}{visible(record.getMessage().rstrip())}"
        return f"{line}\n{failure}" if failure else line
