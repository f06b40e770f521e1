"""Running the pip server: its backend directory, its environment, and a clean end.

The server is a child process, not an exec, because something must outlive it: its Python backend leaves helper
processes and shared memory behind when it is killed, and its backend directory has to be laid out in real files.
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
_PR_SET_PDEATHSIG = 1
_STUB_GRACE_S = 5.0


def run(server: PipServer, arguments: list[str]) -> int:
    """Run the server until it ends, or until this process is told to end.

    SIGTERM and SIGINT are passed on; the server then finishes what it is doing and stops.

    Args:
        server: the installation.
        arguments: of tritonserver, but for the backend directory and the name of its shared memory.

    Returns:
        The server's exit status; 128 + N if signal N ended it.
    """
    prefix = f"gomin_server_{os.getpid()}_"
    stopping = False

    with _backend_directory(server) as backends:
        command = [
            str(server.binary),
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={prefix}",
            *arguments,
        ]
        libc = ctypes.CDLL(None)

        def die_with_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

        # its own session: a Ctrl-C at the terminal reaches the server once, through us, and its helpers never
        process = subprocess.Popen(
            command, env=_environment(server), start_new_session=True, preexec_fn=die_with_parent
        )

        def pass_on(number: int, _frame: object) -> None:
            nonlocal stopping
            stopping = True
            process.send_signal(signal.SIGTERM if number == signal.SIGINT else number)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, pass_on)
        try:
            status = process.wait()
        finally:
            _end_group(process.pid)
            for region in _SHARED_MEMORY.glob(f"{prefix}*"):
                region.unlink(missing_ok=True)
    if status < 0:
        # a server that ends by the signal that we passed on has done as it was told
        return 0 if stopping and -status == signal.SIGTERM else 128 - status
    return status


@contextlib.contextmanager
def _backend_directory(server: PipServer) -> Iterator[Path]:
    """The Python backend and our Python-based onnxruntime backend, side by side; removed at the end.

    Real files: the server refuses symbolic links that lead out of the backend directory.
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
    """The helper processes take the packages of the first python3 on PATH, and need the same libraries."""
    libraries = [*map(str, server.libraries), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
    }


def _end_group(group: int) -> None:
    """End what is left of the server's processes: helpers outlive a server that was killed."""
    deadline = time.monotonic() + _STUB_GRACE_S
    number = signal.SIGTERM
    while _group_exists(group):
        if time.monotonic() > deadline:
            number = signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
        time.sleep(0.05)


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
