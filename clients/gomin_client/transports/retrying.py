"""Repeated requests: until a server is ready at first, and if it is lost later.

Transports raise a `ServerError` other than `AccessError` if repeating the request may help: no server answers, the
connection was lost, or the server is unavailable (starting, stopping, its queue full). A bad request stays bad, and one
that took too long would take as long again. Models have no state and requests no effects, so a request that was lost
can be sent again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any, TypeVar

from numpy.typing import NDArray

from gomin_client.contract.model import ModelContract
from gomin_client.errors import (
    AccessError,
    ContractError,
    GominError,
    IncompleteAnswerError,
    InferenceError,
    ModelNotReadyError,
    ServerError,
    UsageError,
)
from gomin_client.threads import start_thread
from gomin_client.transports.base import LONGEST_S, ModelInfo, Parameters, ServerInfo, Tensors, Transport
from gomin_client.transports.forking import renew_in_children
from gomin_client.transports.wrapper import TransportWrapper

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
SHORTEST_RESTART_S = 1.0  # after a pause of this length, the model is compared with the first one

MOST_INCOMPLETE = 3  # answers to one request, after which it is given up

T = TypeVar("T")
logger = logging.getLogger("gomin_client")


class RetryingTransport(TransportWrapper):
    """Another transport, whose lost requests are repeated."""

    def __init__(self, inner: Transport, wait_s: float, retry_for_s: float) -> None:
        """Wrap a transport.

        Args:
            inner: makes one attempt at a time.
            wait_s: see `Connection`.
            retry_for_s: see `Connection`.
        """
        super().__init__(inner)
        self._wait_s = wait_s
        self._retry_for_s = retry_for_s
        self._pinned: dict[str, ModelInfo] = {}
        self._closed = threading.Event()
        self._requested_at = float("-inf")
        self._mismatch: GominError | None = None
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Begin without threads; see `Forkable`."""
        was_closed = self._closed.is_set()
        self._closed = threading.Event()
        if was_closed:
            self._closed.set()
        self._lock = threading.Lock()
        self._lost_at: float | None = None
        self._answered_at = float("-inf")
        self._watched: set[tuple[str, int]] = set()  # models and versions that a thread compares

    def server(self) -> ServerInfo | None:
        """See `Transport.server`."""
        return self._repeat(self._wait_s, self._inner.server)

    def models(self) -> list[str]:
        """See `Transport.models`."""
        return self._repeat(self._wait_s, self._inner.models)

    def describe(self, model: str) -> ModelInfo:
        """See `Transport.describe`."""
        described = self._repeat(self._wait_s, lambda: self._inner.describe(model))
        self._pinned.setdefault(model, described)
        self._answered_at = time.monotonic()
        return described

    def prepare(self, model: str, version: int) -> None:
        """See `Transport.prepare`."""
        self._repeat(self._wait_s, lambda: self._inner.prepare(model, version))

    def infer(
        self,
        model: str,
        version: int,
        inputs: Tensors,
        timeout_s: float = LONGEST_S,
        parameters: Parameters | None = None,
    ) -> dict[str, NDArray[Any]]:
        """See `Transport.infer`.

        Raises:
            ContractError: also if the server came back with another model under the same name and version.
        """

        def attempt() -> dict[str, NDArray[Any]]:
            self._compare(model, version)
            result = self._inner.infer(model, version, inputs, timeout_s, parameters)
            self._answered_at = time.monotonic()
            return result

        return self._repeat(self._retry_for_s, attempt)

    def infer_stream(
        self,
        model: str,
        version: int,
        inputs: Tensors,
        timeout_s: float = LONGEST_S,
        parameters: Parameters | None = None,
    ) -> Generator[dict[str, NDArray[Any]]]:
        """See `Transport.infer_stream`. A lost request is repeated: a chain with the same seed has the same answers.

        Raises:
            ContractError: see `infer`.
        """
        answers: Generator[dict[str, NDArray[Any]]] | None = None
        passed_on = 0

        def following() -> dict[str, NDArray[Any]] | None:
            nonlocal answers
            try:
                if answers is None:
                    self._compare(model, version)
                    answers = self._inner.infer_stream(model, version, inputs, timeout_s, parameters)
                    for _ in range(passed_on):
                        next(answers, None)
                answer = next(answers, None)
            except BaseException:
                answers = None
                raise
            self._answered_at = time.monotonic()
            return answer

        try:
            while (answer := self._repeat(self._retry_for_s, following)) is not None:
                passed_on += 1
                yield answer
        finally:
            if answers is not None:
                answers.close()

    def close(self) -> None:
        """See `Transport.close`; nothing is repeated any more."""
        self._closed.set()
        super().close()

    def _repeat(self, seconds: float, attempt: Callable[[], T]) -> T:
        """Attempt until it succeeds, for `seconds` after the first failure."""
        delays: Iterator[float] | None = None
        give_up_at: float | None = None
        incomplete = 0
        while True:
            if self._closed.is_set():
                raise UsageError(f"the connection to {self.url} has been closed")
            try:
                result = attempt()
            except Exception as error:
                if self._closed.is_set():  # libraries raise anything after that
                    raise UsageError(f"the connection to {self.url} has been closed") from error
                if not isinstance(error, ServerError) or isinstance(error, AccessError):
                    raise
                incomplete = incomplete + 1 if isinstance(error, IncompleteAnswerError) else 0
                if incomplete == MOST_INCOMPLETE:  # it is not the server that was lost
                    raise InferenceError(f"{error.problem}, {incomplete} times in a row") from error
                self._answered_at = float("-inf")
                now = time.monotonic()
                if give_up_at is None:
                    give_up_at = now + seconds
                if seconds == 0:
                    raise
                if now >= give_up_at:
                    raise type(error)(f"{error}; tried for {seconds:g} s") from error
                self._report_loss(error, seconds)
                delays = delays or _delays()
                self._closed.wait(min(next(delays), give_up_at - now))
            else:
                if self._lost_at is not None:
                    self._report_recovery()
                return result

    def _compare(self, model: str, version: int) -> None:
        """Before a request: compare the model with its first description, if a server may have been restarted.

        Raises:
            GominError: see `_check_same`.
        """
        if self._inner.servers > 1:
            self._watch(model, version)
        elif time.monotonic() - self._answered_at > SHORTEST_RESTART_S:
            self._check_same(model, version)

    def _watch(self, model: str, version: int) -> None:
        """Compare the models of several servers while requests are made; one may be restarted without any loss."""
        with self._lock:
            self._requested_at = time.monotonic()
            if self._mismatch is not None:
                raise self._mismatch
            if (model, version) not in self._watched:
                self._watched.add((model, version))
                start_thread(partial(self._keep_comparing, model, version), "gomin-watch")

    def _keep_comparing(self, model: str, version: int) -> None:
        while not self._closed.wait(SHORTEST_RESTART_S):
            with self._lock:
                if time.monotonic() - self._requested_at > 2 * SHORTEST_RESTART_S:
                    self._watched.discard((model, version))  # idle; the next request starts another thread
                    return
            try:
                self._check_same(model, version)
            except ServerError:
                continue  # none can be reached: the next request reports it
            except GominError as error:
                with self._lock:
                    self._mismatch = error
                return
            except Exception:
                if self._closed.is_set():  # libraries raise anything after that
                    return
                raise

    def _check_same(self, model: str, version: int) -> None:
        """Compare the model with its first description: a server that was restarted may have been given another.

        Raises:
            ContractError: it is another model.
            ServerError: the version is not ready any more, or the server cannot be reached.
        """
        pinned = self._pinned.get(model)
        if pinned is None:
            return
        now = self._inner.describe(model)
        if version not in now.versions:
            raise ModelNotReadyError(f"{self.url}: version {version} of model {model} is not ready any more")
        if now == pinned:
            return
        before, after = (ModelContract.from_parameters(model, info.parameters) for info in (pinned, now))
        if not before.same_model(after, version):
            raise ContractError(
                f"{self.url} came back with another model {model} in version {version}: its audio would not match "
                "the audio made before; start again"
            )

    def _report_loss(self, error: ServerError, seconds: float) -> None:
        """Log the first failure of an outage."""
        with self._lock:
            if self._lost_at is None:
                self._lost_at = time.monotonic()
                logger.warning("%s; trying again for %g s", error.problem, seconds)

    def _report_recovery(self) -> None:
        """Log the end of an outage."""
        with self._lock:
            if self._lost_at is not None:
                logger.warning("%s answers after %.1f s", self.url, time.monotonic() - self._lost_at)
                self._lost_at = None


def _delays() -> Iterator[float]:
    """Exponential backoff with jitter, so that clients that lost a server together do not come back together."""
    delay = FIRST_DELAY_S
    while True:
        yield delay * random.uniform(0.5, 1)
        delay = min(2 * delay, LONGEST_DELAY_S)
