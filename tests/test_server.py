"""gomin-server: which server it starts, how it ends, and what our Python-based backend honours."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import tritonclient.grpc as triton
from tritonclient.utils import np_to_triton_dtype

from gomin_client.transports.triton import GrpcTransport
from gomin_export.networks import GomiGAN
from gomin_server import installation
from tests.support import BIN, RunningServer, free_ports, run, serving


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


def start(repository: Path) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected to end by itself."""
    ports = zip(("--http-port", "--grpc-port", "--metrics-port"), map(str, free_ports(3)), strict=True)
    return run("gomin-server", "--model-repository", repository, *(word for option in ports for word in option))


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


def parameters(**values: str) -> tuple[str, str]:
    """A change of a config.pbtxt that adds parameters."""
    lines = [f'parameters {{ key: "{name}" value: {{ string_value: "{text}" }} }}' for name, text in values.items()]
    return "# what a client must know\n", "\n".join(lines) + "\n"


GPU_OPTIONS = 'gpu_execution_accelerator: [ {\n  name: "cuda" parameters { key: "use_tf32" value: "0" }\n}'
OPENVINO = 'cpu_execution_accelerator: [ { name: "openvino" }'
BATCH_OF_FOUR = "dynamic_batching { max_queue_delay_microseconds: 2000000 preferred_batch_size: [ 4 ] }"


def infer_at_once(server: RunningServer, model: str, requests: list[dict[str, Any]]) -> dict[int, Any]:
    """Send requests without waiting for one another; request number → result, or error."""
    client = triton.InferenceServerClient(server.grpc.removeprefix("grpc://"))
    answers: dict[int, Any] = {}
    for i, arrays in enumerate(requests):
        inputs = [
            triton.InferInput(name, a.shape, np_to_triton_dtype(a.dtype)).set_data_from_numpy(a)
            for name, a in arrays.items()
        ]
        client.async_infer(model, inputs, lambda result, error, i=i: answers.__setitem__(i, error or result))
    deadline = time.monotonic() + 60
    while len(answers) < len(requests):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    client.close()
    return answers


class TestOnnxruntimeBackend:
    """The Python-based backend honours config.pbtxt as the native one does."""

    def variant(self, repository: Path, home: Path, change: tuple[str, str]) -> Path:
        """A repository of the GAN alone, with a changed config.pbtxt."""
        shutil.copytree(repository / "gomin_gan", home / "gomin_gan")
        config = home / "gomin_gan" / "config.pbtxt"
        old, new = change
        assert old in config.read_text()
        config.write_text(config.read_text().replace(old, new))
        return home

    def statistics(self, server: RunningServer, model: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{server.http}/v2/models/{model}/stats") as answer:
            return dict(json.load(answer)["model_stats"][0])

    def test_runs_a_dynamic_batch_as_one(self, repository: Path, tmp_path: Path, demo_gan: GomiGAN) -> None:
        home = self.variant(repository, tmp_path / "models", ("dynamic_batching { }", BATCH_OF_FOUR))
        mels = [np.random.default_rng(i).uniform(0, 1, (1, 128, 20)).astype(np.float32) for i in range(4)]

        with serving(home, tmp_path / "log") as server:
            answers = infer_at_once(server, "gomin_gan", [{"mel": mel} for mel in mels])
            stats = self.statistics(server, "gomin_gan")

        assert (stats["inference_count"], stats["execution_count"]) == (4, 1)
        for i, mel in enumerate(mels):
            expected = demo_gan(torch.from_numpy(mel)).numpy()
            np.testing.assert_allclose(answers[i].as_numpy("audio"), expected, rtol=0, atol=1e-5)

    def test_honours_and_reports_parameters(self, repository: Path, tmp_path: Path) -> None:
        home = self.variant(
            repository,
            tmp_path / "models",
            parameters(
                intra_op_thread_count="1",
                inter_op_thread_count="1",
                execution_mode="1",
                enable_mem_arena="0",
                enable_mem_pattern="false",
                intra_op_threads="4",
            ),
        )
        config = home / "gomin_gan" / "config.pbtxt"
        text = config.read_text()
        assert "optimization { execution" in text
        config.write_text(text.replace("optimization { execution", "optimization { graph { level: -1 } execution"))

        with serving(home, tmp_path / "log") as server:
            log = server.log_text

        assert "session: intra_op_num_threads 1, inter_op_num_threads 1, ORT_PARALLEL" in log
        assert "enable_cpu_mem_arena False, enable_mem_pattern False, ORT_ENABLE_BASIC" in log
        assert "unknown parameter 'intra_op_threads' in config.pbtxt has no effect" in log
        assert "unknown parameter 'gomin" not in log
        assert "unknown parameter 'cudnn_conv_algo_search'" not in log

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (("KIND_AUTO", "KIND_GPU"), "instance group gomin_gan"),
            (parameters(execution_mode="2"), "execution_mode is '2' in config.pbtxt; expected one of 0, 1"),
            (parameters(intra_op_thread_count="two"), "intra_op_thread_count is 'two'"),
            (parameters(enable_mem_arena="maybe"), "enable_mem_arena is 'maybe'"),
            (
                (GPU_OPTIONS, OPENVINO),
                "CPU execution accelerator 'openvino' needs the native onnxruntime backend",
            ),
            (('name: "audio"', 'name: "sound"'), "disagree about tensor sound"),
        ],
        ids=["gpu", "execution_mode", "threads", "arena", "openvino", "output"],
    )
    def test_refuses_what_it_cannot_do(
        self, repository: Path, tmp_path: Path, change: tuple[str, str], words: str
    ) -> None:
        home = self.variant(repository, tmp_path / "models", change)

        result = start(home)

        assert result.returncode == 1
        assert words in result.stdout + result.stderr

    @pytest.mark.parametrize(("arena", "works"), [("cpu:0", True), ("nowhere:0", False)])
    def test_passes_arena_shrinkage_on_to_every_run(
        self, repository: Path, tmp_path: Path, arena: str, works: bool
    ) -> None:
        """ONNX Runtime refuses to run with an arena that it does not have: so it was asked."""
        change = parameters(**{"memory.enable_memory_arena_shrinkage": arena})
        home = self.variant(repository, tmp_path / "models", change)

        with serving(home, tmp_path / "log") as server:
            answers = infer_at_once(server, "gomin_gan", [{"mel": np.zeros((1, 128, 3), np.float32)}])

        assert "unknown parameter" not in server.log_text
        assert hasattr(answers[0], "as_numpy") == works, answers[0]

    def test_a_bad_request_does_not_touch_its_batch(self, tmp_path: Path) -> None:
        """A toy model that looks numbers up: an index beyond its table fails in ONNX Runtime, and with it the batch."""
        home = tmp_path / "models"
        (home / "lookup" / "1").mkdir(parents=True)
        table = onnx.numpy_helper.from_array(np.arange(10, 20, dtype=np.float32), "table")
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Gather", ["table", "index"], ["number"])],
            "lookup",
            [onnx.helper.make_tensor_value_info("index", onnx.TensorProto.INT64, ["batch", 1])],
            [onnx.helper.make_tensor_value_info("number", onnx.TensorProto.FLOAT, ["batch", 1])],
            [table],
        )
        model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 20)])
        onnx.save(model, home / "lookup" / "1" / "model.onnx")
        (home / "lookup" / "config.pbtxt").write_text(
            'name: "lookup" backend: "onnxruntime" max_batch_size: 8\n'
            'input [ { name: "index" data_type: TYPE_INT64 dims: [ 1 ] } ]\n'
            f'output [ {{ name: "number" data_type: TYPE_FP32 dims: [ 1 ] }} ]\n{BATCH_OF_FOUR}\n'
        )

        with serving(home, tmp_path / "log") as server:
            requests = [{"index": np.array([[i]], np.int64)} for i in (3, 4000, 5, 6)]
            answers = infer_at_once(server, "lookup", requests)
            stats = self.statistics(server, "lookup")

        assert "model lookup" in str(answers[1])
        assert [answers[i].as_numpy("number").tolist() for i in (0, 2, 3)] == [[[13.0]], [[15.0]], [[16.0]]]
        assert [(batch["batch_size"], batch["compute_infer"]["count"]) for batch in stats["batch_stats"]] == [(4, 1)]


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


def test_concurrent_diffusion_requests_meet_in_the_denoiser(repository: Path, tmp_path: Path) -> None:
    """Two instances sample side by side, and the denoiser runs some of their steps together."""
    mel = np.zeros((1, 32, 40), np.float32)
    with serving(repository, tmp_path / "log") as server:
        transport = GrpcTransport(server.grpc.removeprefix("grpc://"))
        with ThreadPoolExecutor(2) as pool:
            inputs = [{"mel": mel, "seed": np.array([[seed]], np.uint64)} for seed in (1, 2)]
            list(pool.map(lambda tensors: transport.infer("gomin_diffusion", 1, tensors), inputs))
        transport.close()
        with urllib.request.urlopen(f"{server.http}/v2/models/gomin_denoiser/stats") as answer:
            stats = json.load(answer)["model_stats"][0]

    assert stats["inference_count"] == 100
    assert stats["execution_count"] < 100


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
