"""Servers that hang while they load their models.

A server listens only after it has loaded its models, so it cannot be asked. A server that loads models uses the CPU or
waits for the disk; one whose processes have all been idle for a long time, by the measure of `processes.IdleTime`, does
not finish. Which models it was loading follows from its log.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from gomin_server.processes import IdleTime, helpers, used, waits_for_disk

CHECKS = 20  # within the time limit
LOG_TEXTS = ("loading: ", "successfully loaded ", "failed to load ")  # of lines that say what becomes of a model
_EVENT = re.compile(r"loading: (?P<begun>.+):-?\d+|(?:successfully loaded|failed to load) '(?P<ended>.+?)'")


class StartWatch:
    """Whether a server that is not ready yet makes progress.

    Args:
        server: Its process id.
        limit_s: The time for which its processes may be idle, in seconds.
        log: Gives the lines of its log that have one of `LOG_TEXTS`.
    """

    def __init__(self, server: int, limit_s: float, log: Callable[[], str]) -> None:
        self._server = server
        self._limit_s = limit_s
        self._log = log
        self._idle = IdleTime()
        self._checked = time.monotonic()

    def problem(self) -> str | None:
        """What is wrong, or None. Call it repeatedly, until the server is ready."""
        now = time.monotonic()
        interval = self._limit_s / CHECKS
        if now < self._checked + interval:
            return None
        # nothing is known of a time in which nobody checked, for example because all of this was suspended
        self._idle.idle_s += min(now - self._checked, 2 * interval)
        self._checked = now
        now_used = used([self._server])
        processes = [self._server, *(process for process, _, _ in helpers(self._server))]
        if not self._idle.was_idle(now_used) or any(map(waits_for_disk, processes)):
            self._idle.restart(now_used)
        if self._idle.idle_s < self._limit_s:
            return None
        names = unfinished(self._log())
        loading = f"model{'s' if len(names) > 1 else ''} {', '.join(names)}" if names else "its models"
        return f"the server hangs while it loads {loading}: all its processes were idle for {self._limit_s:g} s"


def unfinished(log: str) -> list[str]:
    """The models that a server began to load and has neither loaded nor given up, by its log."""
    names: dict[str, None] = {}
    for event in _EVENT.finditer(log):
        if event["begun"] is not None:
            names[event["begun"]] = None
        else:
            names.pop(event["ended"], None)
    return list(names)
