"""The server's private directory: which temporary directory it is in, and how unsafe paths are served."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gomin_server import workspace as module
from gomin_server.installation import NativeServer, PipServer, SetupError
from gomin_server.workspace import check_repositories, is_safe, workspace

UNSAFE = ["My Models", "inj$(touch x)", "a`touch x`", 'double"quote', "single'quote", "back\\slash", "new\nline", "a;b",
          "a&b", "tilde~", "star*", "{a,b}", "größer", "日本", "tab\t", "a|b", "<a>", "$HOME", "#a", "!a"]  # fmt: skip


@pytest.fixture
def pip_server(tmp_path: Path) -> PipServer:
    """Files where the pip server has them."""
    root = tmp_path / "tritonserver"
    stubs = root / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
    for directory in (root / "backends" / "python", stubs):
        directory.mkdir(parents=True)
    (root / "backends" / "python" / "libtriton_python.so").write_bytes(bytes(100_000))
    (stubs / "triton_python_backend_stub").write_bytes(bytes(300_000))
    return PipServer(root, ())


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary directory, which TMPDIR names."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    return path


@pytest.fixture
def fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only other temporary directory."""
    path = tmp_path / "fallback"
    path.mkdir()
    monkeypatch.setattr(module, "FALLBACKS", (str(path),))
    return path


@pytest.fixture
def mount(temporary: Path) -> Iterator[Callable[[str], None]]:
    """Mounts a file system with some options over the temporary directory."""
    mounted = False

    def mount(options: str) -> None:
        nonlocal mounted
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(temporary)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this user cannot mount file systems")
        mounted = True

    yield mount
    if mounted:
        subprocess.run(["umount", str(temporary)], check=True)


def test_the_private_directory_is_in_tmpdir_and_removed_at_the_end(
    pip_server: PipServer, temporary: Path, tmp_path: Path
) -> None:
    said: list[str] = []

    with workspace(pip_server, [str(tmp_path)], said.append) as space:
        (directory,) = temporary.iterdir()
        assert directory.stat().st_mode & 0o777 == 0o700
        assert space.token in directory.name
        assert space.arguments == (f"--backend-directory={directory}", f"--model-repository={tmp_path}")
        assert {path.name for path in (directory / "python").iterdir()} == {
            "libtriton_python.so",
            "triton_python_backend_stub",
        }
        assert (directory / "onnxruntime/model.py").is_file()

    assert list(temporary.iterdir()) == []
    assert said == []


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_repository_is_served_through_a_link(
    pip_server: PipServer, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    said: list[str] = []

    with workspace(pip_server, ["temporary", name], said.append) as space:  # relative paths
        assert space.arguments[1] == "--model-repository=temporary"
        link = space.arguments[2].removeprefix("--model-repository=")
        assert is_safe(link)
        assert (Path(link) / "model").is_dir()

    assert (tmp_path / name / "model").is_dir()
    assert len(said) == 1
    assert "\n" not in said[0]


@pytest.mark.parametrize("path", ["/srv/models", "models/", "../models", "/a/b-c_d.e+f@g:h%20,i"])
def test_ordinary_paths_are_safe(path: str) -> None:
    assert is_safe(path)


def test_the_native_server_needs_a_private_directory_only_for_links(temporary: Path, tmp_path: Path) -> None:
    native = NativeServer(Path("/opt/tritonserver/bin/tritonserver"), Path("/opt/tritonserver/backends"))
    (tmp_path / "My Models").mkdir()

    with workspace(native, [str(tmp_path)], print) as space:
        assert list(temporary.iterdir()) == []
        assert space.arguments == (f"--model-repository={tmp_path}",)
    with workspace(native, [str(tmp_path / "My Models")], print) as space:
        (directory,) = temporary.iterdir()
        assert space.arguments == (f"--model-repository={directory / 'repository-0'}",)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", UNSAFE)
def test_a_model_with_an_unsafe_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()

    with pytest.raises(SetupError, match="rename it") as caught:
        check_repositories([str(tmp_path)])

    assert "\n" not in str(caught.value)


def test_files_in_a_repository_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "read me (first).txt").touch()

    check_repositories([str(tmp_path)])


def test_a_repository_must_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SetupError, match="nowhere: no such directory; run gomin-export first"):
        check_repositories([str(tmp_path), str(tmp_path / "nowhere")])
    with pytest.raises(SetupError, match="file: cannot read the model repository: Not a directory"):
        check_repositories([str(tmp_path / "file")])


class TestUnusableTemporaryDirectories:
    def use(self, server: PipServer, fallback: Path, repository: Path) -> str:
        """What is said when a server is set up; it must use the fallback, and leave nothing behind."""
        said: list[str] = []
        with workspace(server, [str(repository)], said.append) as space:
            assert space.arguments[0] == f"--backend-directory={fallback / f'gomin-server-{space.token}'}"
            assert space.environment == {"TMPDIR": str(fallback)}
        assert list(fallback.iterdir()) == []
        (line,) = said
        assert line.endswith(f"; using {fallback} for temporary files instead")
        return line.rpartition("; ")[0]

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ("size=128k", "is full"),
            ("nr_inodes=2", "is full"),
            ("ro", "is read-only"),
            ("noexec", module.NOEXEC),
        ],
    )
    def test_file_systems(
        self,
        pip_server: PipServer,
        temporary: Path,
        fallback: Path,
        mount: Callable[[str], None],
        options: str,
        reason: str,
    ) -> None:
        mount(options)

        assert self.use(pip_server, fallback, fallback) == f"TMPDIR={temporary} {reason}"
        assert list(temporary.iterdir()) == []

    def test_missing(self, pip_server: PipServer, temporary: Path, fallback: Path) -> None:
        temporary.rmdir()
        assert self.use(pip_server, fallback, fallback) == f"TMPDIR={temporary} does not exist"

        temporary.touch()
        assert self.use(pip_server, fallback, fallback) == f"TMPDIR={temporary} is not a directory"

    def test_unsafe(
        self, pip_server: PipServer, tmp_path: Path, fallback: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "inj$(touch x)"
        path.mkdir()
        monkeypatch.setenv("TMPDIR", str(path))

        assert "has special characters in its path" in self.use(pip_server, fallback, fallback)
        assert list(path.iterdir()) == []

    def test_none_can_be_used(self, pip_server: PipServer, temporary: Path, fallback: Path) -> None:
        temporary.rmdir()
        shutil.rmtree(fallback)

        with (
            pytest.raises(SetupError) as caught,
            workspace(pip_server, [str(temporary)], print),
        ):
            pass

        assert str(caught.value) == (
            f"no directory for temporary files can be used: TMPDIR={temporary} does not exist; "
            f"{fallback} does not exist. "
            "Set TMPDIR to a writable directory on a file system that is not mounted noexec"
        )
