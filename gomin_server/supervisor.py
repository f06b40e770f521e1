"""Runs a server: its environment, its signals, restarts after a crash, and the cleanup.

The server is a child process, because something must outlive it: when it is killed, its Python backend leaves helper
processes and shared memory behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gomin_server import predecessors
from gomin_server.arguments import values
from gomin_server.console import filtered
from gomin_server.health import Health
from gomin_server.installation import NativeServer, PipServer
from gomin_server.ports import Address, is_listening
from gomin_server.probes import Prober, Service
from gomin_server.restarts import Restarts
from gomin_server.starting import LOG_TEXTS, StartWatch
from gomin_server.workspace import Workspace, workspace

CHECK_INTERVAL_S = 0.5
_HELPER_CHECK_S = 0.05
_HELPER_CHECKS = 20, 100  # after SIGTERM and after SIGKILL, for which only a process that waits for the disk is late
_EXIT_TIMEOUT_S = 30.0  # tritonserver's default: the time that it gives requests in flight when it is told to end
_EXIT_GRACE_S = 10.0  # for the rest of its end; it has been seen to hang there
_STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_AWAITED = _STOP | {signal.SIGCHLD}
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Task:
    """What to serve and how.

    Attributes:
        server: The installation.
        repositories: Paths of the model repositories.
        arguments: Other arguments of tritonserver.
        endpoints: Addresses and ports on which the server listens once it is ready.
        restarts: The number of restarts within a minute after which there is no other.
        probed: Where small inferences are sent that find a stuck helper process; None: there are none.
        helper_timeout_s: The time after which a helper process that does not answer them is stuck.
        start_timeout_s: The time for which a server that is not ready yet may be idle; 0: any time.
        hidden: Texts of lines that the server writes and the console does not show.
    """

    server: PipServer | NativeServer
    repositories: Sequence[str]
    arguments: Sequence[str]
    endpoints: Sequence[tuple[Address, int]]
    restarts: int
    probed: Service | None = None
    helper_timeout_s: float = 0.0
    start_timeout_s: float = 0.0
    hidden: Sequence[str] = ()

    @property
    def longest_end_s(self) -> float:
        """The time within which the server ends if it is told to, in seconds."""
        text = values(self.arguments).get("--exit-timeout-secs", "")
        return (float(text) if text.isdecimal() else _EXIT_TIMEOUT_S) + _EXIT_GRACE_S


@dataclass(frozen=True)
class _End:
    """How a server ended.

    Attributes:
        status: Its exit status; 128 + N if signal N killed it.
        reason: The same, for people.
        crashed: Whether a signal killed it or a process of it no longer worked.
        was_ready: Whether it has been ready.
        requested: Whether it was told to end.
    """

    status: int
    reason: str
    crashed: bool
    was_ready: bool
    requested: bool


def run(task: Task, say: Callable[[str], None]) -> int:
    """Run a server until it ends by itself or this process receives SIGTERM, SIGINT or SIGHUP.

    On such a signal the server receives SIGTERM; it completes the requests in flight and exits. A server that crashes
    after it was ready, that hangs while it starts, or one of whose processes no longer works, is restarted.

    Args:
        task: What to serve and how.
        say: Prints a line for the user.

    Returns:
        The server's exit status; 128 + N if signal N killed it. Never 0 if restarting it was given up.

    Raises:
        SetupError: No temporary directory can be used.
    """
    # helpers that outlive the server become children of this process, so that none is left as a zombie
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # signals wait in a queue, from which they are taken: none interrupts the setup or the cleanup
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    restarts = Restarts(task.restarts)
    with workspace(task.server, task.repositories, say) as space:
        end = _run_once(task, space, say)
        if not end.was_ready and not end.crashed:
            return end.status  # a model that cannot be loaded, or a wrong option
        while not end.requested and end.status != 0:
            delay = restarts.delay(time.monotonic(), end.was_ready)
            if delay is None:
                say(f"{end.reason}; the server is not restarted" + (" again" if restarts.recent else ""))
                return end.status
            count = f"restart {restarts.recent} of {restarts.limit} in a minute"
            say(f"{end.reason}; restarting the server in {delay:g} s ({count})")
            if signal.sigtimedwait(_STOP, delay):
                return 0
            end = _run_once(task, space, say, again=True)
        return end.status


def _run_once(task: Task, space: Workspace, say: Callable[[str], None], again: bool = False) -> _End:
    """Run the server until it ends, or until one of its processes no longer works, which ends it."""
    command = [
        str(task.server.binary),
        *space.arguments,
        f"--backend-config=python,shm-region-prefix-name={predecessors.shared_memory_prefix(space.token)}",
        *task.arguments,
    ]
    # its own session: Ctrl-C at the terminal reaches the server once, through this process, and its helpers never
    with filtered(task.hidden, LOG_TEXTS if task.start_timeout_s else ()) as stderr:
        process = subprocess.Popen(
            command,
            env=_environment(task.server, space),
            start_new_session=True,
            preexec_fn=_prepare_child,
            stderr=stderr.pipe,
        )
    health = Health(process.pid, Prober(task.probed, task.helper_timeout_s) if task.probed else None)
    start = StartWatch(process.pid, task.start_timeout_s, stderr.kept_lines) if task.start_timeout_s else None
    problem, ready, requested = None, False, False
    end_by = math.inf
    try:
        while (status := process.poll()) is None:
            received = signal.sigtimedwait(_AWAITED, CHECK_INTERVAL_S)
            if received and received.si_signo in _STOP:
                requested = True
                health.close()  # the server waits for open HTTP connections; an unanswered probe is one
                end_by = min(end_by, time.monotonic() + task.longest_end_s)
                process.send_signal(signal.SIGTERM)
            if time.monotonic() > end_by:
                say(f"the server did not end within {task.longest_end_s:g} s and is killed")
                process.kill()
                status = process.wait()
                break
            if not ready and all(is_listening(*endpoint) for endpoint in task.endpoints):
                ready = True
                if again:
                    say("the server is ready again")
            problem = None if requested else health.problem(ready)
            if start is not None and not (problem or ready or requested):
                problem = start.problem()
            if problem:
                # not SIGTERM: with a dead helper the server would take half a minute to end, and answer meanwhile
                # that its models do not exist; after a lost connection, clients repeat their requests
                process.kill()
                status = process.wait()
                break
    finally:
        health.close()
        _end_group(process.pid)
        stderr.wait()
        predecessors.remove_shared_memory(space.token)
    if problem:
        return _End(128 - status, problem, True, ready, requested)
    if status >= 0:
        return _End(status, f"the server ended with status {status}", False, ready, requested)
    stopped = requested and status == -signal.SIGTERM  # killed by SIGTERM, as requested
    reason = f"the server was killed by signal {-status} ({signal.strsignal(-status)})"
    return _End(0 if stopped else 128 - status, reason, True, ready, requested)


def _environment(server: PipServer | NativeServer, space: Workspace) -> dict[str, str]:
    """Environment of the server.

    The pip server's helper processes use the first python3 on PATH and need the same libraries.
    """
    environment = {**os.environ, **space.environment}
    if isinstance(server, PipServer):
        libraries = [*map(str, server.libraries), environment.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    return environment


def _prepare_child() -> None:
    """Runs in the child before exec: the kernel ends the server when this process is killed."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)


def _end_group(group: int) -> None:
    """End and reap the server's remaining processes: helpers outlive a server that was killed.

    Checks are counted, and not seconds: SIGKILL is sent even if this process was suspended meanwhile.
    """
    for number, checks in zip((signal.SIGTERM, signal.SIGKILL), _HELPER_CHECKS, strict=True):
        for _ in range(checks):
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-group, os.WNOHANG)[0]:
                    pass
            try:
                os.killpg(group, number)
            except ProcessLookupError:
                return
            time.sleep(_HELPER_CHECK_S)
