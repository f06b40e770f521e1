"""What processes do, as /proc shows it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gomin_server.processes import Served, has_clients, served, used, waits_for_disk

PROGRAM = """
import subprocess, sys, time
def compute():
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
if sys.argv[1] == "below":
    subprocess.run([sys.executable, __file__, "itself"])
elif sys.argv[1] == "itself":
    compute()
    print("done", flush=True)
    time.sleep(600)
else:
    print("done", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def process(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A process that has computed for half a second, itself or in a child, or not at all."""
    program = tmp_path_factory.mktemp("program") / "program.py"
    program.write_text(PROGRAM)
    with subprocess.Popen(
        [sys.executable, program, request.param], stdout=subprocess.PIPE, start_new_session=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.pid
        os.killpg(child.pid, signal.SIGKILL)


@pytest.mark.parametrize("process", ["itself", "below"], indirect=True)
def test_what_a_process_and_its_descendants_use(process: int) -> None:
    assert used([process]).ran_s >= 0.5


@pytest.mark.parametrize("process", ["not at all"], indirect=True)
def test_what_an_idle_process_uses(process: int) -> None:
    before = used([process])
    busy = used([os.getpid()])
    while used([os.getpid()]).ran_s < busy.ran_s + 0.5:
        pass

    assert used([process]).ran_s - before.ran_s < 0.01
    assert not waits_for_disk(process)


def test_a_process_that_has_ended_uses_nothing() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()

    assert used([ended.pid]) == (0.0, 0.0)


def test_what_a_helper_serves(tmp_path: Path) -> None:
    program = tmp_path / "gomin_gan" / "3" / "model.py"
    program.parent.mkdir(parents=True)
    program.write_text("print('running', flush=True); input()")
    command = ["stub", program]
    with subprocess.Popen(command, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert served(child.pid) == Served("gomin_gan", "3")
        child.communicate(b"\n")
    assert served(child.pid) is None


def test_clients_are_connections_to_the_servers_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not has_clients(os.getpid(), [port])
        with socket.create_connection(("127.0.0.1", port)):
            assert has_clients(os.getpid(), [1, port])
