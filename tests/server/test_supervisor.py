"""The life of a server process: signals, kills and cleanup."""

import itertools
import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gomin_server import supervisor
from tests.server.processes import descendants, is_alive, leftovers
from tests.support import BIN, READY_TIMEOUT_S, free_ports, serving

pytestmark = [pytest.mark.server, pytest.mark.long]


def own_temporary_directory(home: Path) -> dict[str, str]:
    """An environment in which no other server cleans up what is left here."""
    (home / "temporary").mkdir()
    return {"TMPDIR": str(home / "temporary")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_processes(gan_repository: Path, tmp_path: Path, number: int) -> None:
    with serving(gan_repository, tmp_path / "log") as server:
        processes = descendants(server.process.pid)
        assert len(processes) >= 2  # tritonserver and a helper for each model instance
        assert len(leftovers(server)) >= 2  # its private directory and shared memory

        status = server.stop(number)

        assert status == 0, server.log_text
        assert [pid for pid in processes if is_alive(pid)] == []
        assert leftovers(server) == []
        assert "Traceback" not in server.log_text


def test_a_killed_tritonserver_leaves_nothing_behind(gan_repository: Path, tmp_path: Path) -> None:
    with serving(gan_repository, tmp_path / "log", "--restarts", "0") as server:
        processes = descendants(server.process.pid)

        os.kill(server.tritonserver, signal.SIGKILL)
        status = server.process.wait(timeout=60)

        assert status == 128 + signal.SIGKILL
        assert "the server was killed by signal 9 (Killed); the server is not restarted\n" in server.log_text
        assert [pid for pid in processes if is_alive(pid)] == []
        assert leftovers(server) == []


def test_tritonserver_does_not_outlive_a_killed_launcher(gan_repository: Path, tmp_path: Path) -> None:
    with serving(gan_repository, tmp_path / "log", env=own_temporary_directory(tmp_path)) as server:
        processes = descendants(server.process.pid)

        server.process.kill()
        server.process.wait()

        deadline = time.monotonic() + 60
        while any(is_alive(pid) for pid in processes):
            assert time.monotonic() < deadline, "still alive a minute later"
            time.sleep(0.2)


def test_after_a_killed_launcher_the_next_one_cleans_up_and_has_its_ports(gan_repository: Path, tmp_path: Path) -> None:
    ports = free_ports(3)
    environment = own_temporary_directory(tmp_path)
    with serving(gan_repository, tmp_path / "log", ports=ports, env=environment) as server:
        processes = descendants(server.process.pid)
        server.process.send_signal(signal.SIGSTOP)  # it would kill a server with a stopped helper
        # a helper that is stopped cannot end by itself, and keeps the server from ending
        for pid in descendants(server.tritonserver):
            os.kill(pid, signal.SIGSTOP)
        server.process.kill()
        server.process.wait()
        assert any(is_alive(pid) for pid in processes)
        assert leftovers(server)

        with serving(gan_repository, tmp_path / "log2", ports=ports, env=environment) as second:
            assert [pid for pid in processes if is_alive(pid)] == []
            assert leftovers(server) == []
            assert "removed what a killed gomin-server left behind" in second.log_text


def test_helpers_that_are_stopped_are_killed_by_a_launcher_that_was_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock shows a minute more; without a clock, nothing depends on it."""
    now = itertools.count(0, 60)
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: next(now), sleep=time.sleep))
    helper = subprocess.Popen(["sleep", "600"], start_new_session=True)
    os.kill(helper.pid, signal.SIGSTOP)
    try:
        supervisor._end_group(helper.pid)

        assert not is_alive(helper.pid)
    finally:
        helper.kill()
        helper.wait()


def test_a_server_that_fails_to_start_passes_its_status_on_and_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = tmp_path / "models" / "broken"
    broken.mkdir(parents=True)
    (broken / "config.pbtxt").write_text('name: "broken"\nbackend: "onnxruntime"\n')
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    ports = zip(("--http-port", "--grpc-port", "--metrics-port"), map(str, free_ports(3)), strict=True)
    command = [
        BIN / "gomin-server",
        "--model-repository",
        broken.parent,
        *(word for option in ports for word in option),
    ]

    process = subprocess.Popen(
        command, env={**os.environ, "TMPDIR": str(temporary)}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    _, stderr = process.communicate(timeout=READY_TIMEOUT_S)

    assert process.returncode == 1
    assert b"failed to load all models" in stderr
    assert list(temporary.iterdir()) == []
