"""The choice of a tritonserver, and the requirements of pip's."""

import json
import os
import shutil
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from gomin_server import installation
from gomin_server.console import NO_GPU_LINES
from gomin_server.installation import arguments_without_gpu
from tests.server.imitation import native_server
from tests.support import RunningServer, serving


@pytest.fixture
def native(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An imitation of NVIDIA's installation, first on PATH."""
    root = native_server(tmp_path / "tritonserver")
    monkeypatch.setenv("PATH", f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return root


def test_the_native_server_on_path_is_preferred(native: Path) -> None:
    found = installation.find_server()

    assert found == installation.NativeServer(native / "bin" / "tritonserver", native / "backends")


def test_a_server_on_path_without_the_native_backend_is_ignored(native: Path) -> None:
    shutil.rmtree(native / "backends")

    assert isinstance(installation.find_server(), installation.PipServer)


def test_a_given_backend_directory_is_searched(native: Path) -> None:
    (native / "backends").rename(native / "elsewhere")

    found = installation.find_server(str(native / "elsewhere"))

    assert found == installation.NativeServer(native / "bin" / "tritonserver", native / "elsewhere")


class TestMissingRequirements:
    @pytest.fixture(autouse=True)
    def no_native_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")

    def problems(self) -> str:
        with pytest.raises(installation.SetupError) as caught:
            installation.find_server()
        return str(caught.value)

    def test_all_are_reported_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(installation, "_installed", {"numpy": "2.3.1", "onnxruntime": "1.20.0"}.get)
        monkeypatch.setattr(installation, "_has_libpython", lambda: False)
        monkeypatch.setattr(installation.platform, "libc_ver", lambda: ("glibc", "2.31"))

        problems = self.problems()

        assert "numpy is 2.3.1" in problems
        assert "libpython3." in problems
        assert "glibc is 2.31; it needs 2.35 or newer" in problems
        assert "onnxruntime-gpu is missing" not in problems

    @pytest.mark.parametrize(
        ("installed", "words"),
        [
            ({"numpy": "1.26.4"}, "package onnxruntime-gpu is missing"),
            ({"onnxruntime-gpu": "1.20"}, "package numpy is missing"),
            ({"numpy": "1.26", "onnxruntime-gpu": "1.20", "onnxruntime": "1.20"}, "are both installed"),
        ],
    )
    def test_packages(self, monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], words: str) -> None:
        monkeypatch.setattr(installation, "_installed", installed.get)

        assert words in self.problems()

    def test_the_pip_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(installation.importlib.util, "find_spec", {}.get)

        assert "pip install 'gomin-triton[server]'" in self.problems()

    def test_a_path_that_the_library_path_cannot_contain(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(installation, "_pip_server_root", lambda: tmp_path / "a:b/tritonserver")

        assert "a:b/tritonserver: its path has ':' or ';', which LD_LIBRARY_PATH cannot contain" in self.problems()

    @pytest.mark.parametrize("numpy", ["2.4.6", None])
    def test_a_python_without_packages_of_numpy_1(self, monkeypatch: pytest.MonkeyPatch, numpy: str | None) -> None:
        monkeypatch.setattr(installation, "_installed", {"numpy": numpy}.get)
        monkeypatch.setattr(installation, "_python_version", lambda: "3.14")
        monkeypatch.setattr(installation, "MAX_PYTHON", (3, 10))

        (problem,) = [line for line in self.problems().splitlines() if line.startswith("  - ")]

        assert "no packages for Python 3.14" in problem
        assert "an environment with Python 3.11 or 3.12" in problem

    def test_another_platform(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(installation, "platform", SimpleNamespace(system=lambda: "Darwin", machine=lambda: "arm64"))

        assert "this is Darwin on arm64" in self.problems()


class TestArgumentsWithoutGpu:
    def test_a_machine_without_one(self, tmp_path: Path) -> None:
        (tmp_path / "nvidiactl").touch()
        assert arguments_without_gpu([], tmp_path) == ["--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0"]

    def test_the_users_own_choice(self, tmp_path: Path) -> None:
        assert arguments_without_gpu(["--allow-gpu-metrics"], tmp_path) == ["--pinned-memory-pool-byte-size=0"]

    def test_a_machine_with_one(self, tmp_path: Path) -> None:
        (tmp_path / "nvidia0").touch()
        assert arguments_without_gpu([], tmp_path) == []


NO_GPU = pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has a GPU")


@NO_GPU
def test_no_complaints_about_a_missing_gpu(server: RunningServer) -> None:
    for text in ("NVML", "DCGM", *NO_GPU_LINES):
        assert text not in server.log_text


@NO_GPU
@pytest.mark.server
def test_a_log_file_has_them(tiny_repository: Path, tmp_path: Path) -> None:
    with serving(tiny_repository, tmp_path / "console", f"--log-file={tmp_path / 'log'}") as server:
        infer = f"{server.http}/v2/models/gomin_gan/infer"
        tensor = {"name": "mel", "shape": [1, 128, 2], "datatype": "FP32", "data": [0] * 256}
        urllib.request.urlopen(infer, json.dumps({"inputs": [tensor]}).encode()).close()
        for text in NO_GPU_LINES:
            assert text in (tmp_path / "log").read_text()
