"""What our Python-based onnxruntime backend honours, refuses and survives, through a real Triton server."""

import json
import re
import shutil
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import tritonclient.grpc as triton
from tritonclient.utils import np_to_triton_dtype

from gomin_client.transports.base import settled
from gomin_export.networks import GomiGAN
from tests.support import RunningServer, serving, start


def parameters(**values: str) -> tuple[str, str]:
    """A change of a config.pbtxt that adds parameters."""
    lines = [f'parameters {{ key: "{name}" value: {{ string_value: "{text}" }} }}' for name, text in values.items()]
    return "# what a client must know\n", "\n".join(lines) + "\n"


GPU_OPTIONS = 'gpu_execution_accelerator: [ { name: "cuda" parameters { key: "use_tf32" value: "0" } }'
OPENVINO = 'cpu_execution_accelerator: [ { name: "openvino" }'
NO_DELAY = "dynamic_batching { max_queue_delay_microseconds: 0 }"
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
        text = re.sub(r"model_warmup \{\n.*?\n\}\n", "", config.read_text(), flags=re.DOTALL)  # statistics count it
        assert old in text
        config.write_text(text.replace(old, new))
        return home

    def statistics(self, server: RunningServer, model: str) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            with urllib.request.urlopen(f"{server.http}/v2/models/{model}/stats") as answer:
                return dict(json.load(answer)["model_stats"][0])

        return settled(ask, enough=lambda stats: stats["execution_count"] > 0)

    def test_runs_a_dynamic_batch_as_one(self, repository: Path, tmp_path: Path, demo_gan: GomiGAN) -> None:
        home = self.variant(repository, tmp_path / "models", (NO_DELAY, BATCH_OF_FOUR))
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
