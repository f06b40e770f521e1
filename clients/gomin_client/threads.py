"""Threads of the client, which a system with a limit of processes or memory may refuse."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gomin_client.errors import GominError


class NoThreadError(GominError):
    """The system gives this process no more threads."""


def start_thread(run: Callable[[], object], name: str) -> threading.Thread:
    """Start a thread that does not keep the process alive.

    Raises:
        NoThreadError: the system gives no more.
    """
    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise NoThreadError(
            "the system gives this process no more threads: raise its limit of processes or memory (ulimit -u, "
            "ulimit -v, a container's), or do less at a time"
        ) from error
    return thread
