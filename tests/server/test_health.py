"""Dead and stopped processes of a server are noticed, and no others."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gomin_server import health
from gomin_server.health import LASTING_S, Health
from gomin_server.processes import Served

SERVER = '''
import subprocess, sys, threading
# a process with the name of a helper, started by a thread as Triton does
program = """
import ctypes, os, time
ctypes.CDLL(None).prctl(15, b'triton_python_backend_stub')
print(os.getpid(), flush=True)
time.sleep(600)
"""
def start():
    helper = subprocess.Popen([sys.executable, "-c", program])
    sys.stdin.readline()
    helper.wait()
    print("reaped", flush=True)
    sys.stdin.readline()
thread = threading.Thread(target=start)
thread.start()
thread.join()
'''


class Imitation:
    """A process with one child, which has a helper's name and which the process reaps when told to."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.helper = int(self.process.stdout.readline())
        self.health = Health(self.process.pid)

    def reap(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "reaped\n"

    def wait_for_state(self, state: str) -> None:
        """Wait until the helper is running or stopped, as /proc reports it."""
        deadline = time.monotonic() + 60
        while Path(f"/proc/{self.helper}/stat").read_text().rpartition(")")[2].split()[0] != state:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def problem(self, within: float) -> str | None:
        """The first problem within a number of seconds."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if found := self.health.problem():
                return found
            time.sleep(0.1)
        return None


@pytest.fixture
def server() -> Iterator[Imitation]:
    imitation = Imitation()
    try:
        assert imitation.problem(within=0.5) is None
        yield imitation
    finally:
        for pid in (imitation.helper, imitation.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        imitation.process.communicate()


def test_a_dead_helper_is_a_problem(server: Imitation) -> None:
    os.kill(server.helper, signal.SIGKILL)

    assert server.problem(within=60) == "the helper process of a model died"


def test_a_helper_that_the_server_has_reaped_is_not(server: Imitation) -> None:
    """Triton unloads a model."""
    os.kill(server.helper, signal.SIGTERM)
    server.reap()

    assert server.problem(within=2 * LASTING_S) is None


def test_what_has_ended_is_forgotten(server: Imitation) -> None:
    """The kernel gives its process id to another helper."""
    server.health._served[server.helper] = Served("gone", "1")
    os.kill(server.helper, signal.SIGTERM)
    server.reap()

    assert server.health.problem() is None
    assert server.health._served == {}


@pytest.mark.parametrize(("part", "name"), [("helper", "the helper process of a model"), ("server", "tritonserver")])
def test_a_stopped_process_is_a_problem(server: Imitation, part: str, name: str) -> None:
    pid = server.helper if part == "helper" else server.process.pid
    os.kill(pid, signal.SIGSTOP)

    assert server.problem(within=60) == f"{name} is stopped"


def test_a_short_stop_is_not(server: Imitation, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: now))
    for state, moment in (("T", 0), ("T", 0.9 * LASTING_S), ("S", LASTING_S), ("T", 2 * LASTING_S)):
        os.kill(server.helper, signal.SIGSTOP if state == "T" else signal.SIGCONT)
        server.wait_for_state(state)
        now = moment

        assert server.health.problem() is None
