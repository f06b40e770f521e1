"""The life of a server process: signals, kills and cleanup."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.server.processes import descendants, is_alive, leftovers, temporary_directories
from tests.support import serving, start

pytestmark = pytest.mark.server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_processes(tiny_repository: Path, tmp_path: Path, number: int) -> None:
    with serving(tiny_repository, tmp_path / "log") as server:
        processes = descendants(server.process.pid)
        assert len(processes) >= 2  # tritonserver and a helper for each model instance
        assert leftovers(server)

        status = server.stop(number)

        assert status == 0, server.log_text
        assert [pid for pid in processes if is_alive(pid)] == []
        assert leftovers(server) == []
        assert "Traceback" not in server.log_text


def test_a_killed_tritonserver_leaves_nothing_behind(tiny_repository: Path, tmp_path: Path) -> None:
    with serving(tiny_repository, tmp_path / "log") as server:
        processes = descendants(server.process.pid)

        os.kill(server.tritonserver, signal.SIGKILL)
        status = server.process.wait(timeout=60)

        assert status == 128 + signal.SIGKILL
        assert [pid for pid in processes if is_alive(pid)] == []
        assert leftovers(server) == []


def test_tritonserver_does_not_outlive_a_killed_launcher(tiny_repository: Path, tmp_path: Path) -> None:
    with serving(tiny_repository, tmp_path / "log") as server:
        processes = descendants(server.process.pid)

        server.process.kill()
        server.process.wait()

        deadline = time.monotonic() + 60
        while any(is_alive(pid) for pid in processes):
            assert time.monotonic() < deadline, "still alive a minute later"
            time.sleep(0.2)
    for directory in temporary_directories(server):
        shutil.rmtree(directory)


def test_the_exit_status_of_the_server_is_passed_on(tmp_path: Path) -> None:
    broken = tmp_path / "models" / "broken"
    broken.mkdir(parents=True)
    (broken / "config.pbtxt").write_text('name: "broken"\nbackend: "onnxruntime"\n')
    before = set(Path("/dev/shm").iterdir())

    result = start(broken.parent)

    assert result.returncode == 1
    assert "failed to load all models" in result.stderr
    assert set(Path("/dev/shm").iterdir()) <= before
