"""What a forked process does not inherit: threads, and with them locks, connections and sessions that they hold.

Programs that load a model and then fork (gunicorn with preload, Celery, torch's DataLoader) find their objects in the
child as they were, in the middle of anything. `renew_in_children` lets an object begin anew there.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """An object with threads, locks or connections."""

    def after_fork(self) -> None:
        """Replace them, in the child; no other thread runs yet. What the parent uses must not be touched."""


_forkables: weakref.WeakSet[Forkable] = weakref.WeakSet()
_skip_destructors = False


def renew_in_children(forkable: Forkable) -> None:
    """Call `after_fork` of this object in every process that is forked from now on."""
    _forkables.add(forkable)


def keep_forever(thing: object) -> None:
    """Never destroy an object: the destructor of some waits for threads that the child does not have."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def skip_destructors_in_children() -> None:
    """Skip the destructors of C++ libraries when forked processes exit; to be called once ONNX Runtime is loaded.

    They would wait forever for a thread of ONNX Runtime that only the parent has. Python's own exit handlers run, and
    the exit status stays.
    """
    global _skip_destructors
    _skip_destructors = True


def _renew_all() -> None:
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
    os.register_at_fork(after_in_child=_renew_all)
