"""Signals that ask a program to end: they become `Interrupted`, whatever libraries do with that exception.

The exception is raised wherever the main thread is. A library may turn it into another one there, as a class that is
being made does, or go on without it. So the signal is remembered: `check_interrupted` raises the exception again.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gomin_client.errors import Interrupted

HANGUP = getattr(signal, "SIGHUP", None)  # a terminal was closed; Windows has no such signal
SIGNALS = [number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number is not None]

_received: Interrupted | None = None


def signals_in_use() -> list[int]:
    """The signals that end this program: all of them, but a hangup if the program was started to survive it (nohup)."""
    return [number for number in SIGNALS if number != HANGUP or signal.getsignal(number) != signal.SIG_IGN]


def check_interrupted() -> None:
    """Raise what a signal has raised already, if one came.

    Raises:
        Interrupted: a signal came.
    """
    if _received is not None:
        raise _received from None


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """Let signals raise `Interrupted` in the block, which is the program: afterwards a signal ends it without a word.

    Raises:
        Interrupted: a signal came, whatever else leaves the block, or if nothing does.
    """
    global _received
    _received = None
    numbers = signals_in_use()
    for number in numbers:
        signal.signal(number, _interrupt)
    sys.unraisablehook = _unraisable
    try:
        yield
    finally:
        if _received is None:
            _end_at_once(numbers)
        check_interrupted()


def _interrupt(number: int, _frame: object) -> None:
    global _received
    _end_at_once(signals_in_use())  # a second signal
    if HANGUP is not None:
        signal.signal(HANGUP, signal.SIG_IGN)  # but the system and a shell may each report that the terminal was closed
    _received = Interrupted(number)
    raise _received


def _end_at_once(numbers: list[int]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)


def _unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Print an exception that Python cannot raise, as of a `__del__`; after a signal it is no defect."""
    if _received is None:
        sys.__unraisablehook__(unraisable)
