"""Bodies of requests: raw or multipart, written to a file while they arrive, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from gomin_gateway.problems import GoneError, ProblemError
from gomin_gateway.settings import Limits

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_WRITE = 1 << 20  # bytes that are collected before they are written
_MOST_HEADERS = 1 << 14  # bytes, of the parts of a multipart body

# runs a function in a thread
InThread = Callable[..., Awaitable[Any]]


def check_declared_length(request: Request, most: int) -> None:
    """Refuse a body that is declared too large, before it arrives.

    Raises:
        ProblemError: it is.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:20]) > most:
        raise _too_large(most)


async def receive(request: Request, target: Path, limits: Limits, in_thread: InThread) -> None:
    """Write the body of a request, or the one file in it, to a new file.

    Args:
        request: its body is either the file itself, or multipart/form-data.
        target: the file.
        limits: the largest body, and the longest pause in it.
        in_thread: runs what blocks.

    Raises:
        ProblemError: it is too large, malformed, empty, or has other fields.
        GoneError: the client went away.
        TimeoutError: the client sends nothing.
        OSError: the file cannot be written.
    """
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    blocks = _bounded(request, limits)
    if content_type == b"multipart/form-data":
        boundary = options.get(b"boundary", b"")
        if not 0 < len(boundary) <= 70:
            raise ProblemError("bad-body", "multipart/form-data has no boundary of 1 to 70 characters")
        blocks = _file_in(blocks, boundary)
    file = await in_thread(target.open, "wb")
    try:
        held = bytearray()
        async for block in blocks:
            held += block
            if len(held) >= _WRITE:
                await in_thread(file.write, bytes(held))
                held.clear()
        await in_thread(file.write, bytes(held))
        size = file.tell()
    finally:
        await in_thread(file.close)
    if not size:
        raise ProblemError("bad-body", "the body is empty: send a file, as it is or as multipart/form-data")


async def _bounded(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    received = 0
    blocks = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(limits.idle_s):
                block = await anext(blocks, b"")
        except ClientDisconnect:
            raise GoneError from None
        if not block:
            return
        received += len(block)
        if received > limits.body_bytes:
            raise _too_large(limits.body_bytes)
        yield block


def _too_large(most: int) -> ProblemError:
    return ProblemError("too-large", f"the body exceeds {most:,} bytes, the largest that this gateway takes")


async def _file_in(blocks: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[bytes]:
    """The content of the one file in a multipart body."""
    part = _Parts()
    parser = MultipartParser(boundary, part.callbacks())
    try:
        async for block in blocks:
            parser.write(block)
            if part.content:
                yield bytes(part.content)
                part.content.clear()
        parser.finalize()
    except FormParserError:
        raise ProblemError("bad-body", "the multipart body is malformed") from None
    if not part.is_complete:
        raise ProblemError("bad-body", "the multipart body ends before its last boundary")
    if not part.files:
        raise ProblemError("bad-body", "the multipart body has no file")


class _Parts:
    """What a multipart parser reports.

    Attributes:
        content: bytes of the file that have not been taken.
        files: number of files so far.
        is_complete: whether the last boundary has been read.
    """

    def __init__(self) -> None:
        self.content = bytearray()
        self.files = 0
        self.is_complete = False
        self._name = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._header_bytes = 0

    def callbacks(self) -> MultipartCallbacks:
        """For `MultipartParser`."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._disposition = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._count(end - start)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._count(end - start)

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MOST_HEADERS:
            raise ProblemError("bad-body", "the multipart body has too long headers")

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" not in options:
            raise ProblemError(
                "bad-body", "the multipart body has a field that is no file; parameters belong in the query"
            )
        self.files += 1
        if self.files > 1:
            raise ProblemError("bad-body", "the multipart body has several files: send one in each request")

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.content += data[start:end]

    def _end(self) -> None:
        self.is_complete = True
