"""Runs a server: its environment, its signals, and the cleanup.

The server is a child process, because something must outlive it: when it is killed, its Python backend leaves helper
processes and shared memory behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gomin_server.installation import NativeServer, PipServer
from gomin_server.workspace import Workspace, workspace

_SHARED_MEMORY = Path("/dev/shm")
_HELPER_GRACE_S = 5.0
_STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_AWAITED = _STOP | {signal.SIGCHLD}
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def run(
    server: PipServer | NativeServer, repositories: Sequence[str], arguments: Sequence[str], say: Callable[[str], None]
) -> int:
    """Run the server until it ends or this process receives SIGTERM, SIGINT or SIGHUP.

    The server receives SIGTERM then; it completes the requests in flight and exits.

    Args:
        server: The installation.
        repositories: Paths of the model repositories.
        arguments: Other arguments of tritonserver.
        say: Prints a line for the user.

    Returns:
        The server's exit status; 128 + N if signal N killed it.

    Raises:
        SetupError: No temporary directory can be used.
    """
    # helpers that outlive the server become children of this process, so that none is left as a zombie
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # signals wait in a queue, from which _supervise takes them: none interrupts the setup or the cleanup
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    with workspace(server, repositories, say) as space:
        return _supervise(server, space, arguments)


def _supervise(server: PipServer | NativeServer, space: Workspace, arguments: Sequence[str]) -> int:
    command = [
        str(server.binary),
        *space.arguments,
        f"--backend-config=python,shm-region-prefix-name={space.shared_memory_prefix}",
        *arguments,
    ]
    # its own session: Ctrl-C at the terminal reaches the server once, through this process, and its helpers never
    process = subprocess.Popen(
        command, env=_environment(server, space), start_new_session=True, preexec_fn=_prepare_child
    )
    stopping = False
    try:
        while (status := process.poll()) is None:
            if signal.sigwait(_AWAITED) in _STOP:
                stopping = True
                process.send_signal(signal.SIGTERM)
    finally:
        _end_group(process.pid)
        for region in _SHARED_MEMORY.glob(f"{space.shared_memory_prefix}*"):
            region.unlink(missing_ok=True)
    if status < 0:
        # a server that SIGTERM killed has stopped as requested
        return 0 if stopping and -status == signal.SIGTERM else 128 - status
    return status


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
    """End and reap the server's remaining processes: helpers outlive a server that was killed."""
    started = time.monotonic()
    while (waited := time.monotonic() - started) < 2 * _HELPER_GRACE_S:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-group, os.WNOHANG)[0]:
                pass
        try:
            os.killpg(group, signal.SIGTERM if waited < _HELPER_GRACE_S else signal.SIGKILL)
        except ProcessLookupError:
            return
        time.sleep(0.05)
