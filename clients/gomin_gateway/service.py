"""What all requests share: places, threads, the model server, counters; and what becomes of errors."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from gomin_client.errors import GominError, ServerError
from gomin_gateway.backend import Backend
from gomin_gateway.metrics import Metrics
from gomin_gateway.problems import BODY, ProblemError, busy, problem_of
from gomin_gateway.settings import ApiKeys, Limits
from gomin_gateway.tasks import Job

T = TypeVar("T")
logger = logging.getLogger("gomin_gateway")

_FRESH_S = 1.0  # that an answer of the model server about itself is used again


class Service:
    """A running gateway.

    Attributes:
        backend: the models.
        limits: what is taken.
        keys: who may call.
        metrics: counters.
        taken: number of places that are taken.
        sessions: those of /v1/stream (identifiers of requests) that took a place and have not sent their last message.
    """

    def __init__(self, backend: Backend, limits: Limits, keys: ApiKeys) -> None:
        self.backend = backend
        self.limits = limits
        self.keys = keys
        self.metrics = Metrics()
        self.taken = 0
        self.sessions: set[str] = set()
        self.models = Shared(backend.models)
        self.ready = Shared(backend.check_ready)
        # each place uses one thread at a time, so that none waits for a thread
        self._pool = ThreadPoolExecutor(limits.concurrent, thread_name_prefix="gomin-gateway")
        self._background: set[asyncio.Task[None]] = set()

    @property
    def is_busy(self) -> bool:
        """Whether something is in progress that should be finished before the gateway ends."""
        return bool(self.taken or self.sessions)

    def take_place(self) -> None:
        """Take a place; `leave` gives it back.

        Raises:
            ProblemError: all are taken.
        """
        if self.taken >= self.limits.concurrent:
            raise busy()
        self.taken += 1
        self.metrics.in_progress.inc()

    def leave(self) -> None:
        """Give a place back."""
        self.taken -= 1
        self.metrics.in_progress.dec()

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run what blocks; only with a place."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *arguments))

    def submit(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """`in_thread`, as a future."""
        return asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *arguments))

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what goes on after a request has been answered or cancelled; `close` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def refusal(self, error: GominError | ProblemError, job: Job | None = None) -> ProblemError:
        """What a caller is shown of an error; the whole of it is logged if it is the operator's matter."""
        if isinstance(error, ProblemError):
            return error
        hidden = {}
        if job is not None:  # the longest first
            hidden = {str(job.source.with_suffix(suffix)): BODY for suffix in (".npz", ".npy", "")}
        refusal = problem_of(error, self.backend.url, hidden)
        if refusal.status >= 500:
            logger.error("%s", error.problem if isinstance(error, ServerError) else error)
        return refusal

    async def close(self) -> None:
        """End what is left; requests to the model server that are in flight end with an error."""
        await asyncio.to_thread(self.backend.close)
        await asyncio.gather(*self._background, return_exceptions=True)
        self._pool.shutdown(wait=False)


class Shared:
    """The answer to a question that many ask: one asks the model server, the others wait and get the same."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._ask = ask
        self._lock = asyncio.Lock()
        self._asked_at = float("-inf")
        self._answer: Any = None
        self._error: GominError | None = None

    async def get(self) -> Any:
        """The answer, no older than a second.

        Raises:
            GominError: the server could not be asked.
        """
        async with self._lock:
            if time.monotonic() - self._asked_at > _FRESH_S:
                self._answer, self._error = await asyncio.to_thread(self._attempt)
                self._asked_at = time.monotonic()
        if self._error is not None:
            raise self._error
        return self._answer

    def _attempt(self) -> tuple[Any, GominError | None]:
        try:
            return self._ask(), None
        except GominError as error:
            return None, error
