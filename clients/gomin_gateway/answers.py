"""Answers that are made in threads while they are sent, for as long as somebody waits for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gomin_client.errors import FileError, GominError
from gomin_client.files.atomic import temporary_directory
from gomin_gateway import uploads
from gomin_gateway.access import record_of
from gomin_gateway.problems import GoneError, ProblemError
from gomin_gateway.service import Service, logger
from gomin_gateway.tasks import Head, Job

Task = Callable[[Job], Iterator[Head | bytes]]


class Answer(Response):
    """The answer to a request with a file: takes a place, receives the file, and sends what a task makes of it.

    Errors before the first byte of the answer become problem documents. After that, the connection is closed without
    the end of the answer.
    """

    def __init__(self, service: Service, task: Task) -> None:
        super().__init__()
        self._service = service
        self._task = task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request.

        Raises:
            ProblemError: before anything was sent.
        """
        service, limits = self._service, self._service.limits
        request = Request(scope, receive)
        uploads.check_declared_length(request, limits.body_bytes)
        service.take_place()
        work = _Work(service)
        ends_at = asyncio.get_running_loop().time() + limits.deadline_s
        try:
            job = await self._receive(request, work, ends_at)
            async with asyncio.timeout_at(ends_at):
                await self._send(job, work, request.receive, send)
        except TimeoutError:
            record_of(scope).problem = "deadline"
            work.refuse(ProblemError("deadline", f"the request took longer than {limits.deadline_s:g} s"))
        except GoneError:
            record_of(scope).is_gone = True
        except (GominError, ProblemError) as error:
            problem = service.refusal(error, work.job)
            record_of(scope).problem = problem.kind
            work.refuse(problem)
        finally:
            record_of(scope).add(work.job)
            await work.end()

    async def _receive(self, request: Request, work: _Work, ends_at: float) -> Job:
        """The job, whose file has arrived."""
        service, limits = self._service, self._service.limits
        try:
            directory = await service.in_thread(work.stack.enter_context, temporary_directory())
            job = work.job = Job(directory, service.backend, limits.audio_s)
            async with asyncio.timeout_at(ends_at):
                await uploads.receive(request, job.source, limits, service.in_thread)
        except TimeoutError:
            raise ProblemError("slow-upload", "the body did not arrive in time") from None
        except (FileError, OSError) as error:
            logger.error("%s", error if isinstance(error, FileError) else f"temporary files: {error.strerror}")
            raise ProblemError("no-space", "the gateway has no room for temporary files") from error
        return job

    async def _send(self, job: Job, work: _Work, receive: Receive, send: Send) -> None:
        """Send what the task makes. Before its last bytes, the place is given back: the caller may come again."""
        work.watch(receive)
        work.steps = self._task(job)
        head = await work.step()
        assert isinstance(head, Head)  # it comes first
        await send(_start(head))
        work.is_begun = True
        held = b""
        while isinstance(part := await work.step(), bytes):
            if head.length is None:
                await self._send_body(send, part, more=True)
                continue
            if held:
                await self._send_body(send, held, more=True)
            held = part
        await work.end()
        await self._send_body(send, held, more=False)

    async def _send_body(self, send: Send, body: bytes, *, more: bool) -> None:
        try:
            async with asyncio.timeout(self._service.limits.idle_s):
                await send({"type": "http.response.body", "body": body, "more_body": more})
        except TimeoutError:
            raise ProblemError("deadline", "the client does not read the answer") from None


class _Work:
    """What has to be ended when a request ends, in whatever way.

    Attributes:
        stack: contexts to leave at the end.
        job: once there is one.
        steps: makes the answer.
        is_begun: whether the head of the answer was sent.
    """

    def __init__(self, service: Service) -> None:
        self.stack = ExitStack()
        self.job: Job | None = None
        self.steps: Iterator[Head | bytes] | None = None
        self.is_begun = False
        self._is_ended = False
        self._service = service
        self._step: asyncio.Future[Head | bytes | None] | None = None
        self._gone: asyncio.Task[None] | None = None

    def watch(self, receive: Receive) -> None:
        """Notice that the caller goes away; the body has been received."""

        async def until_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        self._gone = asyncio.get_running_loop().create_task(until_gone())

    async def step(self) -> Head | bytes | None:
        """The next part of the answer; None at its end.

        Raises:
            GoneError: the caller went away.
        """
        assert self._gone is not None  # `watch` comes first
        self._step = self._service.submit(next, self.steps, None)
        waited: list[asyncio.Future[Any]] = [self._step, self._gone]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if self._gone.done():
            raise GoneError
        return self._step.result()

    def refuse(self, refusal: ProblemError) -> None:
        """Refuse the request, or break off an answer that has begun.

        Raises:
            ProblemError: nothing has been sent.
        """
        if not self.is_begun:
            raise refusal
        logger.warning("an answer was broken off: %s", refusal.detail)

    async def end(self) -> None:
        """Stop the work. The place is free when the thread has ended, which may still wait for the model server."""
        if self._is_ended:
            return
        self._is_ended = True
        if self.job is not None:
            self.job.ended.set()
        if self._gone is not None:
            self._gone.cancel()
        task = self._service.in_background(self._clean_up())
        if self._step is None or self._step.done():
            await asyncio.shield(task)

    async def _clean_up(self) -> None:
        try:
            if self._step is not None:
                await asyncio.wait({self._step})
                self._step.cancelled() or self._step.exception()  # retrieved, or asyncio complains
                close = getattr(self.steps, "close", None)
                if close is not None:
                    with contextlib.suppress(Exception):  # of requests that were cancelled
                        await self._service.in_thread(close)
            await self._service.in_thread(self.stack.close)
        finally:
            self._service.leave()


def _start(head: Head) -> dict[str, object]:
    headers = {"content-type": head.media_type, "cache-control": "no-store", **head.headers}
    if head.length is not None:
        headers["content-length"] = str(head.length)
    encoded = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": 200, "headers": encoded}
