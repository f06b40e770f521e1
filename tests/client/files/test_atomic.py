"""Files that appear complete or not at all."""

import errno
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gomin_client.errors import FileError
from gomin_client.files import atomic
from gomin_client.files.atomic import atomic_folder, atomic_write, temporary_directory


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail_half_way() -> None:
        with atomic_write(path) as part:
            part.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_the_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_sync(handle: int) -> None:
        events.append(f"{os.fstat(handle).st_size} bytes synced")
        fsync(handle)

    def noted_replace(self: Path, target: Path) -> Path:
        events.append(f"renamed to {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    with atomic_write(tmp_path / "a.txt") as part:
        part.write_text("new")

    assert events == ["3 bytes synced", "renamed to a.txt"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a.txt") as part:
            part.write_text("new")
    finally:
        os.umask(old)

    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


KILLED = """
import os, signal, sys
from pathlib import Path
from gomin_client.files.atomic import atomic_write

with atomic_write(Path(sys.argv[1])) as part:
    part.write_text("half of the n")
    print(part.name, flush=True)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


def start(path: Path, end: str) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, path, end], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, path.parent / process.stdout.readline().strip()


def test_what_a_killed_run_left_is_removed_by_the_next_over_the_same_output(tmp_path: Path) -> None:
    path, other = tmp_path / "a.wav", tmp_path / "b.wav"
    left, left_of_other = start(path, "killed"), start(other, "killed")
    for process, part in (left, left_of_other):
        assert process.wait() == -signal.SIGKILL
        assert part.is_file()
    live, live_part = start(path, "live")
    mine = tmp_path / ".a.wav.notes.part"  # not a name that we give
    mine.touch()

    with atomic_write(path) as part:
        part.write_text("new")

    assert sorted(tmp_path.iterdir()) == sorted([path, live_part, left_of_other[1], mine])
    live.communicate("")  # its end
    assert path.read_text() == "half of the n"
    assert sorted(tmp_path.iterdir()) == sorted([path, left_of_other[1], mine])


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")

    with (
        pytest.raises(FileError, match=r"a\.wav: is not a file but a pipe or a device"),
        atomic_write(tmp_path / "a.wav"),
    ):
        pass
    assert [path.is_fifo() for path in tmp_path.iterdir()] == [True]


def test_several_threads_write_one_output(tmp_path: Path) -> None:
    """The last to end wins; none takes the file of another for a leftover."""

    def write(number: int) -> None:
        with atomic_write(tmp_path / "a.txt") as part:
            part.write_text(str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(50)))

    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    leftover = tmp_path / ".a.txt.0123456789ab.part"
    leftover.touch()

    with atomic_write(tmp_path / "a.txt") as part:
        part.write_text("new")

    assert sorted(tmp_path.iterdir()) == [leftover, tmp_path / "a.txt"]


class TestFolders:
    def fill(self, path: Path, text: str, *, fails: bool = False) -> None:
        with atomic_folder(path) as part:
            (part / "sub").mkdir()
            (part / "sub" / "a.txt").write_text(text)
            if fails:
                raise RuntimeError

    def test_a_folder_is_replaced_as_a_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "folder"
        self.fill(path, "one")
        (path / "old.txt").touch()

        self.fill(path, "two")

        assert [file.name for file in path.iterdir()] == ["sub"]
        assert (path / "sub" / "a.txt").read_text() == "two"
        assert list(path.parent.iterdir()) == [path]

    def test_a_failed_copy_is_one_sentence(self, tmp_path: Path) -> None:
        """copytree gathers a list of errors; a full disk gives one for each file."""
        source = tmp_path / "source"
        source.mkdir()
        for name in ("a", "b"):
            (source / name).symlink_to("nothing")

        with pytest.raises(FileError) as caught, atomic_folder(tmp_path / "site") as part:
            shutil.copytree(source, part, dirs_exist_ok=True)

        assert str(caught.value) == f"{tmp_path / 'site'}: cannot be written: No such file or directory"
        assert [entry.name for entry in tmp_path.iterdir()] == ["source"]

    def test_a_failure_leaves_the_old_folder(self, tmp_path: Path) -> None:
        path = tmp_path / "folder"
        self.fill(path, "one")

        with pytest.raises(RuntimeError):
            self.fill(path, "two", fails=True)

        assert (path / "sub" / "a.txt").read_text() == "one"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(
        ("raised", "shown"),
        [
            (OSError(errno.EIO, "Input/output error"), FileError("folder: cannot be written: Input/output error")),
            (KeyboardInterrupt("interrupted"), KeyboardInterrupt("interrupted")),
        ],
    )
    def test_a_folder_that_cannot_get_its_name_leaves_the_old_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException, shown: BaseException
    ) -> None:
        path = tmp_path / "folder"
        self.fill(path, "one")
        rename = Path.rename

        def refuse_new(self: Path, target: Path) -> Path:
            if target == path and (self / "sub" / "a.txt").read_text() == "two":
                raise raised
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", refuse_new)
        with pytest.raises(type(shown), match=str(shown)):
            self.fill(path, "two")

        assert (path / "sub" / "a.txt").read_text() == "one"
        assert list(tmp_path.iterdir()) == [path]

    def test_what_a_killed_run_left_is_removed(self, tmp_path: Path) -> None:
        left = tmp_path / ".folder.0123456789ab.part"
        (left / "sub").mkdir(parents=True)
        locked = tmp_path / ".folder.ba9876543210.part"
        locked.mkdir()
        lock = os.open(locked, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)

        try:
            self.fill(tmp_path / "folder", "one")
        finally:
            os.close(lock)

        assert sorted(tmp_path.iterdir()) == [locked, tmp_path / "folder"]


class TestTemporaryDirectory:
    def test_it_is_removed(self) -> None:
        with temporary_directory() as directory:
            (directory / "a").touch()
        assert not directory.exists()

    def test_one_that_cannot_be_made_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))

        with (
            pytest.raises(FileError, match=r"missing: temporary files cannot be written there: No such file"),
            temporary_directory(),
        ):
            pass


def test_nothing_is_kept_of_temporary_directories() -> None:
    before = dict(atomic._leftovers)
    with atomic.temporary_directory() as directory, atomic.atomic_write(directory / "a") as part:
        part.write_text("x")
    assert atomic._leftovers == before
