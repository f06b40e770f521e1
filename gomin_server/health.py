"""Whether the processes of a running server work.

After the death of a helper process Triton answers every request to its model with an error, permanently, and continues
to report the server and the model as live and ready. The state of the processes is therefore watched. A dead helper
remains a zombie, since Triton waits for a helper only when it unloads the model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

HELPER = "triton_python_backend_stub"[:15]  # the kernel cuts names
DEAD_AFTER_S = 0.9  # a helper whose model is being unloaded is a zombie for a moment
STOPPED_AFTER_S = 2.0
_PROC = Path("/proc")


class Health:
    """The processes of one server.

    Args:
        server: Its process id.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._models: dict[int, str] = {}  # the command line of a dead process cannot be read
        self._since: dict[tuple[int, str], float] = {}

    def problem(self) -> str | None:
        """What is wrong, or None. Call it repeatedly: only a lasting state is a problem."""
        now = time.monotonic()
        since: dict[tuple[int, str], float] = {}
        found = None
        for process, name, state in [*_helpers(self._server), *_states([self._server])]:
            if state not in "ZT":
                if name == HELPER and process not in self._models:
                    self._models[process] = _model(process)
                continue
            key = process, state
            since[key] = self._since.get(key, now)
            lasted = now - since[key]
            what = f"the helper process of {self._models.get(process, 'a model')}" if name == HELPER else "tritonserver"
            if state == "Z" and name == HELPER and lasted >= DEAD_AFTER_S:
                found = f"{what} died"
            elif state == "T" and lasted >= STOPPED_AFTER_S:
                found = f"{what} is stopped"
        self._since = since
        return found


def _helpers(server: int) -> Iterator[tuple[int, str, str]]:
    """Process id, name and state of each helper process."""
    for thread in _PROC.glob(f"{server}/task/*/children"):
        try:
            children = [int(number) for number in thread.read_text().split()]
        except OSError:  # the thread has ended
            continue
        yield from (entry for entry in _states(children) if entry[1] == HELPER)


def _states(processes: list[int]) -> Iterator[tuple[int, str, str]]:
    for process in processes:
        try:
            name, _, rest = (_PROC / str(process) / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:  # the process has ended
            continue
        yield process, name, rest.split()[0]


def _model(process: int) -> str:
    """The model of a helper process, from the path in its command line."""
    try:
        arguments = (_PROC / str(process) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return "a model"
    parts = Path(arguments[1].decode(errors="replace")).parts if len(arguments) > 1 else ()
    return f"model {parts[-3]}" if len(parts) >= 3 else "a model"  # …/MODEL/VERSION/FILE
