"""What a killed gomin-server left behind is removed by the next one, and nothing else."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gomin_server import predecessors
from gomin_server.predecessors import clean_up, directory_name, hold_lock, shared_memory_prefix

TOKEN = os.urandom(6).hex()
OTHER = os.urandom(6).hex()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A private directory without a lock, with a file."""
    path = tmp_path / directory_name(TOKEN)
    (path / "python").mkdir(parents=True)
    (path / "python" / "stub").touch()
    return path


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process that has some name and an argument, and sleeps."""
    processes = []

    def start(name: str, argument: str) -> subprocess.Popen[str]:
        program = f"import ctypes, time; ctypes.CDLL(None).prctl(15, b'{name}'); print(flush=True); time.sleep(600)"
        process = subprocess.Popen([sys.executable, "-c", program, argument], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def clean(parent: Path) -> list[str]:
    """Clean a directory up; what is said."""
    said: list[str] = []
    clean_up([str(parent), "/nonexistent"], said.append)
    return said


def test_without_an_owner_everything_is_removed(
    directory: Path, start: Callable[..., subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_memory = tmp_path / "shm"
    shared_memory.mkdir()
    monkeypatch.setattr(predecessors, "SHARED_MEMORY", shared_memory)
    for token in (TOKEN, OTHER):
        (shared_memory / f"{shared_memory_prefix(token)}region").touch()
    server = start("tritonserver", f"--backend-directory={directory}")
    helper = start("triton_python_backend_stub", f"{shared_memory_prefix(TOKEN)}region")
    another_server = start("tritonserver", directory_name(OTHER))
    editor = start("vi", str(directory))
    os.close(hold_lock(directory))  # the owner ends

    said = clean(tmp_path)

    assert not directory.exists()
    assert [path.name for path in shared_memory.iterdir()] == [f"{shared_memory_prefix(OTHER)}region"]
    assert server.wait(timeout=60) == helper.wait(timeout=60) == -9
    assert another_server.poll() is None
    assert editor.poll() is None
    assert said == [f"removed what a killed gomin-server left behind: {directory}, its processes and shared memory"]


def test_with_an_owner_nothing_is_removed(
    directory: Path, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    server = start("tritonserver", f"--backend-directory={directory}")
    lock = hold_lock(directory)

    assert clean(tmp_path) == []

    os.close(lock)
    assert (directory / "python" / "stub").exists()
    assert server.poll() is None


def test_a_directory_that_is_being_made_is_left_alone(directory: Path, tmp_path: Path) -> None:
    (directory / "lock.new").touch()

    assert clean(tmp_path) == []
    assert directory.exists()


@pytest.mark.parametrize("name", ["gomin-server-", "gomin-server-0123", "gomin-server-0123456789ab-copy", "models"])
def test_other_directories_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    os.close(hold_lock(tmp_path / name))

    assert clean(tmp_path) == []
    assert (tmp_path / name).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_directories_of_another_user_are_left_alone(directory: Path, tmp_path: Path) -> None:
    os.close(hold_lock(directory))
    os.chown(directory, 12345, 12345)

    assert clean(tmp_path) == []
    assert directory.exists()
