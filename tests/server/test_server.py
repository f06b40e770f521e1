"""gomin-server: which server it starts, how it ends, and what our Python-based backend honours."""

import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
import tritonclient.grpc as triton

from gomin_server import installation
from tests.support import BIN, RunningServer, free_ports, run, serving, start


def descendants(pid: int) -> set[int]:
    """The live processes below one, as /proc shows them."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == pid:
                found |= {int(entry.name)} | descendants(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def leftovers(server: RunningServer) -> list[str]:
    prefix = f"gomin_server_{server.process.pid}_"
    shared_memory = [path.name for path in Path("/dev/shm").glob(f"{prefix}*")]
    return shared_memory + [path for path in layouts(server) if Path(path).exists()]


def layouts(server: RunningServer) -> list[str]:
    """The temporary backend directories that the server's log names."""
    return sorted(set(re.findall(r'[^" ]*/gomin-server-\w+', server.log_text)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything(repository: Path, tmp_path: Path, number: int) -> None:
    with serving(repository, tmp_path / "log") as server:
        processes = descendants(server.process.pid)
        assert len(processes) >= 5  # tritonserver and a helper for each model instance
        assert leftovers(server)

        status = server.stop(number)

        assert status == 0, server.log_text
        assert [pid for pid in processes if is_alive(pid)] == []
        assert leftovers(server) == []


def test_a_killed_tritonserver_leaves_nothing_behind(repository: Path, tmp_path: Path) -> None:
    with serving(repository, tmp_path / "log") as server:
        processes = descendants(server.process.pid)
        (tritonserver,) = [pid for pid in processes if Path(f"/proc/{pid}/exe").resolve().name == "tritonserver"]

        os.kill(tritonserver, signal.SIGKILL)
        status = server.process.wait(timeout=60)

        assert status == 128 + signal.SIGKILL
        assert [pid for pid in processes if is_alive(pid)] == []
        assert leftovers(server) == []


def test_tritonserver_does_not_outlive_a_killed_launcher(repository: Path, tmp_path: Path) -> None:
    with serving(repository, tmp_path / "log") as server:
        processes = descendants(server.process.pid)

        server.process.kill()
        server.process.wait()

        deadline = time.monotonic() + 60
        while any(is_alive(pid) for pid in processes):
            assert time.monotonic() < deadline, "still alive a minute later"
            time.sleep(0.2)
    for layout in layouts(server):
        shutil.rmtree(layout)


@pytest.mark.parametrize("kept", [["gomin_gan"], ["gomin_denoiser", "gomin_diffusion"]])
def test_serves_after_either_export_alone(repository: Path, tmp_path: Path, kept: list[str]) -> None:
    alone = tmp_path / "models"
    for model in kept:
        shutil.copytree(repository / model, alone / model)
    (alone / "README.md").touch()  # as in a fresh checkout

    with serving(alone, tmp_path / "log") as server:
        client = triton.InferenceServerClient(server.grpc.removeprefix("grpc://"))
        ready = {model.name for model in client.get_model_repository_index().models if model.state == "READY"}

        assert ready == set(kept)
        assert "(from pip), with the Python-based onnxruntime backend" in server.log_text


def test_listens_on_loopback_unless_told_otherwise(repository: Path, server: RunningServer) -> None:
    for service in ("GRPCInferenceService", "HTTPService", "Metrics Service"):
        assert f"Started {service} at 127.0.0.1:" in server.log_text


def test_host_opens_the_server(repository: Path, tmp_path: Path) -> None:
    with serving(repository, tmp_path / "log", "--host", "0.0.0.0", "--grpc-address=127.0.0.1") as server:
        assert f"Started HTTPService at 0.0.0.0:{server.http_port}" in server.log_text
        assert f"Started GRPCInferenceService at 127.0.0.1:{server.grpc_port}" in server.log_text  # theirs wins


def test_a_status_other_than_0_is_passed_on(tmp_path: Path) -> None:
    broken = tmp_path / "models" / "broken"
    broken.mkdir(parents=True)
    (broken / "config.pbtxt").write_text('name: "broken"\nbackend: "onnxruntime"\n')

    before = set(Path("/dev/shm").iterdir())

    result = start(broken.parent)

    assert result.returncode == 1
    assert "failed to load all models" in result.stderr
    assert set(Path("/dev/shm").iterdir()) <= before


def test_ports_that_cannot_be_had_are_told_before_anything_is_loaded(server: RunningServer, repository: Path) -> None:
    taken = run(
        "gomin-server", "--model-repository", repository, f"--http-port={server.http_port}", "--grpc-port", "x",
        "--allow-metrics", "false",
    )  # fmt: skip
    assert taken.returncode == 1
    assert taken.stderr.splitlines() == [
        f"gomin-server: http: port {server.http_port} on 127.0.0.1 is in use by another program; "
        "choose another with --http-port",
        "gomin-server: --grpc-port x: expected a port number, 1 to 65535",
    ]
    elsewhere = run("gomin-server", "--model-repository", repository, "--host", "203.0.113.9")
    assert elsewhere.returncode == 1
    assert "203.0.113.9 is not an address of this machine" in elsewhere.stderr


class TestChoiceOfServer:
    @pytest.fixture
    def native(self, tmp_path: Path) -> Path:
        """Something that looks like NVIDIA's installation; its tritonserver prints its arguments."""
        root = tmp_path / "tritonserver"
        (root / "bin").mkdir(parents=True)
        (root / "backends" / "onnxruntime").mkdir(parents=True)
        (root / "backends" / "onnxruntime" / "libtriton_onnxruntime.so").touch()
        program = root / "bin" / "tritonserver"
        program.write_text('#!/bin/sh\necho "pid $$"\nfor word; do echo "argument $word"; done\nexit 7\n')
        program.chmod(0o755)
        return root

    def environment(self, *first: Path) -> dict[str, str]:
        return {**os.environ, "PATH": os.pathsep.join([*map(str, first), os.environ["PATH"]])}

    def test_the_native_one_on_path_is_executed(self, native: Path, tmp_path: Path) -> None:
        (tmp_path / "models").mkdir()
        ports = [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), free_ports(3), strict=True)]
        command = [BIN / "gomin-server", "--model-repository", tmp_path / "models", *ports, "--log-verbose", "1"]

        process = subprocess.Popen(
            command, env=self.environment(native / "bin"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        stdout, stderr = process.communicate(timeout=60)

        assert process.returncode == 7
        assert stdout.splitlines() == [
            f"pid {process.pid}",  # this process became tritonserver
            f"argument --model-repository={tmp_path / 'models'}",
            "argument --http-address=127.0.0.1",
            "argument --grpc-address=127.0.0.1",
            "argument --metrics-address=127.0.0.1",
            *(f"argument {port}" for port in ports),
            "argument --log-verbose",
            "argument 1",
        ]
        assert f"using {native}/bin/tritonserver, with the native onnxruntime backend" in stderr

    def test_one_on_path_without_the_backend_is_passed_over(
        self, native: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.rmtree(native / "backends")
        monkeypatch.setenv("PATH", self.environment(native / "bin")["PATH"])

        assert isinstance(installation.find_server(), installation.PipServer)

    def test_a_backend_directory_elsewhere_is_looked_into(self, native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (native / "backends").rename(native / "elsewhere")
        monkeypatch.setenv("PATH", self.environment(native / "bin")["PATH"])

        found = installation.find_server(str(native / "elsewhere"))

        assert found == installation.NativeServer(native / "bin" / "tritonserver", native / "elsewhere")


class TestMissingNeeds:
    def problems(self) -> str:
        with pytest.raises(installation.SetupError) as caught:
            installation.find_server()
        return str(caught.value)

    def test_all_are_told_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
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
        monkeypatch.setenv("PATH", "/nonexistent")
        monkeypatch.setattr(installation, "_installed", installed.get)

        assert words in self.problems()

    def test_the_pip_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        monkeypatch.setattr(installation.importlib.util, "find_spec", {}.get)

        assert "pip install 'gomin-triton[server]'" in self.problems()

    def test_another_platform(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        monkeypatch.setattr(installation, "platform", SimpleNamespace(system=lambda: "Darwin", machine=lambda: "arm64"))

        assert "this is Darwin on arm64" in self.problems()


def test_wrong_usage_ends_with_status_2(tmp_path: Path) -> None:
    missing = run("gomin-server", "--model-repository", tmp_path / "nowhere")

    assert missing.returncode == 2
    assert "nowhere: no such directory" in missing.stderr


def test_several_repositories(repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(repository / "gomin_gan", other / "gomin_gan")
    first = tmp_path / "first"
    for model in ("gomin_denoiser", "gomin_diffusion"):
        shutil.copytree(repository / model, first / model)

    with serving(first, tmp_path / "log", "--model-repository", str(other)) as server:
        for model in ("gomin_gan", "gomin_diffusion"):
            with urllib.request.urlopen(f"{server.http}/v2/models/{model}/ready") as answer:
                assert answer.status == 200


def test_the_log_has_no_traceback(server: RunningServer) -> None:
    assert "Traceback" not in server.log_text


def test_help_says_what_is_passed_on() -> None:
    result = run("gomin-server", "--help")

    assert result.returncode == 0
    assert "All other arguments go to tritonserver" in result.stdout


def test_model_repository_is_required() -> None:
    result = run("gomin-server")

    assert result.returncode == 2
    assert "--model-repository" in result.stderr
