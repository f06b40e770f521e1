"""Whether the processes of a running server work.

After the death of a helper process Triton answers every request to its model with an error, permanently, and continues
to report the server and the model as live and ready. The state of the processes is therefore watched. A dead helper
remains a zombie, since Triton waits for a helper only when it unloads the model. A helper that runs but never answers
is found by small inferences: see `probes`.
"""

from __future__ import annotations

import time

from gomin_server.probes import Prober
from gomin_server.processes import HELPER, Served, helpers, served, states

# A helper whose model is being unloaded is a zombie for a moment; on a busy machine that moment is longer.
LASTING_S = 2.0


class Health:
    """The processes of one server.

    Args:
        server: Its process id.
        prober: Sends small inferences to the models; None: only states of processes are checked.
    """

    def __init__(self, server: int, prober: Prober | None = None) -> None:
        self._server = server
        self._prober = prober
        self._served: dict[int, Served | None] = {}  # the command line of a dead process cannot be read
        self._since: dict[tuple[int, str], float] = {}

    def problem(self, ready: bool = True) -> str | None:
        """What is wrong, or None. Call it repeatedly: only a lasting state is a problem.

        Args:
            ready: Whether the server has been ready, so that it should answer.
        """
        now = time.monotonic()
        since: dict[tuple[int, str], float] = {}
        found = None
        alive: dict[int, Served] = {}
        seen = []  # what has ended is forgotten: the kernel uses process ids again
        for process, name, state in [*helpers(self._server), *states([self._server])]:
            seen.append(process)
            if state not in "ZT":
                if name == HELPER:
                    if process not in self._served:
                        self._served[process] = served(process)
                    if (version := self._served[process]) is not None:
                        alive[process] = version
                continue
            key = process, state
            since[key] = self._since.get(key, now)
            lasted = now - since[key]
            what = self._helper_of(process) if name == HELPER else "tritonserver"
            if lasted < LASTING_S:
                continue
            if state == "T":
                found = f"{what} is stopped"
            elif name == HELPER:
                found = f"{what} died"
        self._since = since
        self._served = {process: self._served[process] for process in seen if process in self._served}
        if found is None and not since and ready and self._prober is not None:
            silent = self._prober.silent(self._server, alive)
            if silent:
                found = f"no answer from the helper process of model {', '.join(silent)}, which is idle"
        return found

    def _helper_of(self, process: int) -> str:
        version = self._served.get(process)
        return "the helper process of " + (f"model {version.model}" if version else "a model")

    def close(self) -> None:
        """Give up small inferences that are unanswered or whose answers were not read."""
        if self._prober is not None:
            self._prober.close()
