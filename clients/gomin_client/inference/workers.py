"""Threads for requests in flight."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from gomin_client.contract.choices import MOST_CONCURRENT
from gomin_client.errors import UsageError

Task = Callable[[], Any]


class Workers:
    """Threads that are started when they are needed, and kept; they end when this object is closed or dropped.

    Unlike those of `concurrent.futures`, they do not keep a program from ending: after an interrupt nobody waits for a
    server's answer.
    """

    def __init__(self, most: int = MOST_CONCURRENT) -> None:
        """Args: most: maximum number of threads."""
        self._most = most
        self._crew = _Crew()
        weakref.finalize(self, self._crew.close)

    def submit(self, task: Task) -> Future[Any]:
        """Run a task in one of the threads.

        Returns:
            Its result; a `UsageError` if this object has been closed.
        """
        return self._crew.submit(task, self._most)

    def close(self) -> None:
        """End the threads after the tasks that have been submitted."""
        self._crew.close()


class _Crew:
    """What the threads of a `Workers` share; they do not refer to that object, so that it can be dropped."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Task] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._busy = 0
        self._closed = False

    def submit(self, task: Task, most: int) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                future.set_exception(UsageError("the vocoder has been closed"))
                return future
            self._busy += 1
            if self._busy > self._threads < most:
                self._threads += 1
                threading.Thread(target=self._work, name="gomin-request", daemon=True).start()
        self._tasks.put((future, task))
        return future

    def close(self) -> None:
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
                except BaseException as error:  # for the caller
                    future.set_exception(error)
            with self._lock:
                self._busy -= 1
