"""Runs the pip server: its backend directory, its environment, and the cleanup.

The server is a child process, because something must outlive it: when it is killed, its Python backend leaves helper
processes and shared memory behind, and its backend directory has to be built from real files and removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gomin_server.installation import PipServer

BACKENDS = Path(__file__).parent / "backends"
_SHARED_MEMORY = Path("/dev/shm")
_HELPER_GRACE_S = 5.0
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def run(server: PipServer, arguments: list[str]) -> int:
    """Run the server until it ends or this process receives SIGTERM, SIGINT or SIGHUP.

    The server receives SIGTERM then; it completes the requests in flight and exits.

    Args:
        server: The installation.
        arguments: Arguments of tritonserver, without the backend directory and the name of its shared memory.

    Returns:
        The server's exit status; 128 + N if signal N killed it.
    """
    prefix = f"gomin_server_{os.getpid()}_"
    process: subprocess.Popen[bytes] | None = None
    stopping = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True
        if process is not None:
            process.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    # helpers that outlive the server become children of this process, so that none is left as a zombie
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)

    with _backend_directory(server) as backends:
        command = [
            str(server.binary),
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={prefix}",
            *arguments,
        ]
        # its own session: Ctrl-C at the terminal reaches the server once, through this process, and its helpers never
        process = subprocess.Popen(
            command, env=_environment(server), start_new_session=True, preexec_fn=_end_with_parent
        )
        if stopping:  # the signal came before the server had started
            process.send_signal(signal.SIGTERM)
        try:
            status = process.wait()
        finally:
            _end_group(process.pid)
            for region in _SHARED_MEMORY.glob(f"{prefix}*"):
                region.unlink(missing_ok=True)
    if status < 0:
        # a server that SIGTERM killed has stopped as requested
        return 0 if stopping and -status == signal.SIGTERM else 128 - status
    return status


@contextlib.contextmanager
def _backend_directory(server: PipServer) -> Iterator[Path]:
    """A temporary directory with the Python backend and our Python-based onnxruntime backend.

    It has copies of files: the server refuses symbolic links that lead out of the backend directory.
    """
    with tempfile.TemporaryDirectory(prefix="gomin-server-") as directory:
        backends = Path(directory)
        python = backends / "python"
        shutil.copytree(server.root / "backends" / "python", python)
        shutil.copy(server.stub, python / server.stub.name)
        (python / server.stub.name).chmod(0o755)
        shutil.copytree(BACKENDS / "onnxruntime", backends / "onnxruntime")
        yield backends


def _environment(server: PipServer) -> dict[str, str]:
    """Environment of the server. Its helper processes use the first python3 on PATH and need the same libraries."""
    libraries = [*map(str, server.libraries), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
    }


def _end_with_parent() -> None:
    """Runs in the child before exec: the kernel ends the server when this process is killed."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


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
