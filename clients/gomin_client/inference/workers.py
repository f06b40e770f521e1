"""Threads for requests that are under way at the same time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from gomin_client.contract.choices import MOST_CONCURRENT
from gomin_client.errors import UsageError


class Workers:
    """Threads that are made when they are needed and stay.

    Unlike those of `concurrent.futures`, they do not keep a program from ending: after an interrupt nobody waits for
    what a server may still answer. They stay because HTTP clients belong to threads.
    """

    def __init__(self, most: int = MOST_CONCURRENT) -> None:
        """Args: most: threads at a time."""
        self._most = most
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._busy = 0
        self._closed = False

    def submit(self, task: Callable[[], Any]) -> Future[Any]:
        """Have a task done."""
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                future.set_exception(UsageError("the vocoder has been closed"))
                return future
            self._busy += 1
            if self._busy > self._threads < self._most:
                self._threads += 1
                threading.Thread(target=self._work, name="gomin-request", daemon=True).start()
        self._tasks.put((future, task))
        return future

    def close(self) -> None:
        """End the threads, once they have done what they were given."""
        with self._lock:
            self._closed = True
            for _ in range(self._threads):
                self._tasks.put(None)
            self._threads = 0

    def _work(self) -> None:
        while (given := self._tasks.get()) is not None:
            future, task = given
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(task())
                except BaseException as error:  # for who asked
                    future.set_exception(error)
            with self._lock:
                self._busy -= 1
