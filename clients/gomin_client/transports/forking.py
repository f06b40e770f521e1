"""What a forked process does not inherit: threads, and with them locks, connections and sessions that they hold.

Programs that load a model and then fork (gunicorn with preload, Celery, torch's DataLoader) find their objects in the
child as they were, in the middle of anything. `renew_in_children` lets an object begin anew there.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Forkable(Protocol):
    """An object with threads, locks or connections."""

    def after_fork(self) -> None:
        """Replace them, in the child; no other thread runs yet. What the parent uses must not be touched."""


LONGEST_WAIT_S = 20.0  # that a fork waits for work in progress
GRPC_FORK_SUPPORT = "GRPC_ENABLE_FORK_SUPPORT"


class ForkGate:
    """Keeps forks away from work that a child could not survive: in a library that holds locks of its own meanwhile.

    A fork waits until the work in progress is done, and new work waits until the process has been forked.

    Attributes:
        is_broken: this process was forked in the middle of such work, which did not end in time.
    """

    def __init__(self) -> None:
        self.is_broken = False
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._forking = False

    @contextmanager
    def work(self) -> Iterator[None]:
        """Work that no fork may interrupt."""
        with self._changed:
            self._changed.wait_for(lambda: not self._forking)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def before_fork(self) -> None:
        """Wait for the work in progress."""
        with self._changed:
            self._forking = True
            self._changed.wait_for(lambda: not self._inside, LONGEST_WAIT_S)

    def after_in_parent(self) -> None:
        """Let work begin again."""
        with self._changed:
            self._forking = False
            self._changed.notify_all()

    def after_in_child(self) -> None:
        """Begin anew."""
        self.is_broken |= self._inside > 0
        self._begin()


ONNXRUNTIME = ForkGate()

_forkables: weakref.WeakSet[Forkable] = weakref.WeakSet()
_skip_destructors = False


def renew_in_children(forkable: Forkable) -> None:
    """Call `after_fork` of this object in every process that is forked from now on."""
    _forkables.add(forkable)


def keep_forever(thing: object) -> None:
    """Never destroy an object: the destructor of some waits for threads that the child does not have."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def skip_destructors_in_children() -> None:
    """Skip the destructors of C++ libraries when forked processes exit; to be called once ONNX Runtime or gRPC is used.

    They would wait forever for a thread that only the parent has. Python's own exit handlers run, and the exit status
    stays.
    """
    global _skip_destructors
    _skip_destructors = True


@contextmanager
def grpc_without_fork_handlers() -> Iterator[None]:
    """Import gRPC in this context, so that it leaves forked processes alone.

    By default grpcio starts its threads again in every child, within `fork`. If threads of the parent were calling gRPC
    at that moment, they find its state half changed and end the child with SIGSEGV or SIGABRT. grpcio reads its
    environment variable once, while it is imported. A value that is already set is respected.
    """
    if GRPC_FORK_SUPPORT in os.environ:
        yield
        return
    os.environ[GRPC_FORK_SUPPORT] = "0"
    try:
        yield
    finally:
        del os.environ[GRPC_FORK_SUPPORT]  # other programs that this one starts decide for themselves


def _renew_all() -> None:
    ONNXRUNTIME.after_in_child()
    for forkable in list(_forkables):
        forkable.after_fork()
    if _skip_destructors:
        atexit.register(_exit_first)


def _exit_first() -> None:
    """End the process before the destructors run; registered last, it is the first of libc's exit handlers."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc
        libc.on_exit(libc._exit, None)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(
        before=ONNXRUNTIME.before_fork, after_in_parent=ONNXRUNTIME.after_in_parent, after_in_child=_renew_all
    )
