"""The Python-based onnxruntime backend, in a real Triton server: the settings that it applies, and those it refuses."""

import json
import re
import runpy
import shutil
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import tritonclient.grpc as triton
from tritonclient.utils import np_to_triton_dtype

from gomin_client.transports.statistics import settled
from gomin_export.networks import GomiGAN
from tests.server.processes import descendants
from tests.support import ROOT, UNPROBED, RunningServer, serving, start

pytestmark = [pytest.mark.server, pytest.mark.long]

Change = tuple[str, str]


def parameters(**values: str) -> Change:
    """A change of a config.pbtxt that adds parameters."""
    lines = [f'parameters {{ key: "{name}" value: {{ string_value: "{text}" }} }}' for name, text in values.items()]
    return "# settings that clients read\n", "\n".join(lines) + "\n"


NO_DELAY = "max_queue_delay_microseconds: 0"
BATCH_OF_FOUR = "max_queue_delay_microseconds: 100000000 preferred_batch_size: [ 4 ]"  # however late the fourth comes
AT_MOST_FOUR = "max_queue_delay_microseconds: 2000000 preferred_batch_size: [ 4 ]"
MAX_FRAMES = r'(gomin.max_frames" value: { string_value: ")\d+'
SETTINGS = {
    "intra_op_thread_count": "1",
    "inter_op_thread_count": "1",
    "execution_mode": "1",
    "enable_mem_arena": "0",
    "enable_mem_pattern": "false",
    "intra_op_threads": "4",
}
ACCEPTED: dict[str, list[Change]] = {
    "batched": [(NO_DELAY, BATCH_OF_FOUR)],
    "configured": [
        parameters(**SETTINGS),
        ("optimization { execution", "optimization { graph { level: -1 } execution"),
    ],
    "cpu_arena": [parameters(**{"memory.enable_memory_arena_shrinkage": "cpu:0"})],
    "bounded": [(NO_DELAY, AT_MOST_FOUR), (MAX_FRAMES, r"\g<1>40")],
    "no_arena": [parameters(**{"memory.enable_memory_arena_shrinkage": "nowhere:0"})],
}
GPU_OPTIONS = 'gpu_execution_accelerator: [ { name: "cuda" parameters { key: "use_tf32" value: "0" } }'
OPENVINO = 'cpu_execution_accelerator: [ { name: "openvino" }'
REFUSED: dict[str, tuple[Change, str]] = {
    "gpu": (("KIND_AUTO", "KIND_GPU"), "instance group gpu"),
    "mode": (parameters(execution_mode="2"), "execution_mode is '2' in config.pbtxt; expected one of 0, 1"),
    "threads": (parameters(intra_op_thread_count="two"), "intra_op_thread_count is 'two'"),
    "arena": (parameters(enable_mem_arena="maybe"), "enable_mem_arena is 'maybe'"),
    "openvino": ((GPU_OPTIONS, OPENVINO), "CPU execution accelerator 'openvino' needs the native onnxruntime backend"),
    "output": (('name: "audio"', 'name: "sound"'), "disagree about tensor sound"),
}


def place_variant(repository: Path, home: Path, name: str, *changes: Change) -> None:
    """Copy the GAN under another name, with a changed config.pbtxt and without warm-up, which statistics count."""
    shutil.copytree(repository / "gomin_gan", home / name)
    config = home / name / "config.pbtxt"
    text = re.sub(r"model_warmup \{\n.*?\n\}\n", "", config.read_text(), flags=re.DOTALL)
    for old, new in (('name: "gomin_gan"', f'name: "{name}"'), *changes):
        pattern = old if old == MAX_FRAMES else re.escape(old)
        replacement = new if old == MAX_FRAMES else new.replace("\\", "\\\\")
        text, count = re.subn(pattern, replacement, text)
        assert count
    config.write_text(text)


def place_lookup(home: Path) -> None:
    """A toy model that looks numbers up: an index beyond its table fails in ONNX Runtime, and its batch with it."""
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
        f'output [ {{ name: "number" data_type: TYPE_FP32 dims: [ 1 ] }} ]\ndynamic_batching {{ {BATCH_OF_FOUR} }}\n'
    )


@pytest.fixture(scope="module")
def variants(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server with all models whose configuration is accepted."""
    home = tmp_path_factory.mktemp("variants")
    for name, changes in ACCEPTED.items():
        place_variant(tiny_repository, home / "models", name, *changes)
    place_lookup(home / "models")
    with serving(home / "models", home / "log", UNPROBED) as server:
        yield server


@pytest.fixture(scope="module")
def refusals(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The output of a server with the models whose configuration is refused."""
    home = tmp_path_factory.mktemp("refused")
    for name, (change, _) in REFUSED.items():
        place_variant(tiny_repository, home, name, change)
    result = start(home)
    assert result.returncode == 1
    return result.stdout + result.stderr


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
    deadline = time.monotonic() + 300
    while len(answers) < len(requests):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    client.close()
    return answers


def statistics(server: RunningServer, model: str) -> dict[str, Any]:
    def ask() -> dict[str, Any]:
        with urllib.request.urlopen(f"{server.http}/v2/models/{model}/stats") as answer:
            return dict(json.load(answer)["model_stats"][0])

    return settled(ask, enough=lambda stats: stats["execution_count"] > 0)


def log_of(server: RunningServer, model: str) -> str:
    log = server.wait_for_log("Started HTTPService at ")  # after it has loaded its models
    return "\n".join(line for line in log.splitlines() if f"model {model}:" in line)


def test_a_dynamic_batch_runs_as_one(variants: RunningServer, tiny_gan: GomiGAN) -> None:
    mels = [np.random.default_rng(i).uniform(0, 1, (1, 128, 20)).astype(np.float32) for i in range(4)]

    answers = infer_at_once(variants, "batched", [{"mel": mel} for mel in mels])

    counts = statistics(variants, "batched")
    assert (counts["inference_count"], counts["execution_count"]) == (4, 1)
    for i, mel in enumerate(mels):
        expected = tiny_gan(torch.from_numpy(mel)).numpy()
        np.testing.assert_allclose(answers[i].as_numpy("audio"), expected, rtol=0, atol=1e-5)


def test_parameters_are_applied_and_reported(variants: RunningServer) -> None:
    log = log_of(variants, "configured")

    assert "session: intra_op_num_threads 1, inter_op_num_threads 1, ORT_PARALLEL" in log
    assert "enable_cpu_mem_arena False, enable_mem_pattern False, ORT_ENABLE_BASIC" in log
    assert "session.intra_op.spin_duration_us 100" in log
    assert re.findall(r"unknown parameter '(.*?)'", log) == ["intra_op_threads"]


@pytest.mark.parametrize(("model", "works"), [("cpu_arena", True), ("no_arena", False)])
def test_arena_shrinkage_is_passed_on_to_every_run(variants: RunningServer, model: str, works: bool) -> None:
    """ONNX Runtime refuses to run with an arena that it does not have, which proves that it was passed on."""
    answers = infer_at_once(variants, model, [{"mel": np.zeros((1, 128, 3), np.float32)}])

    assert "unknown parameter" not in log_of(variants, model)
    assert hasattr(answers[0], "as_numpy") == works, answers[0]


def test_a_request_of_too_many_frames_is_refused_and_batches_stay_within_the_bound(
    variants: RunningServer, tiny_gan: GomiGAN
) -> None:
    mels = [np.random.default_rng(i).uniform(0, 1, (1, 128, 20)).astype(np.float32) for i in range(4)]
    shapes = [(1, 128, 41), (3, 128, 14), (1, 128, 40)]
    too_long = infer_at_once(variants, "bounded", [{"mel": np.zeros(shape, np.float32)} for shape in shapes])
    answers = infer_at_once(variants, "bounded", [{"mel": mel} for mel in mels])

    for i, frames in enumerate((41, 42)):
        assert too_long[i].status() == "StatusCode.INVALID_ARGUMENT"
        assert f"at most 40 frames in one request, this one has {frames}" in str(too_long[i])
    assert too_long[2].as_numpy("audio").shape == (1, 1, 40 * 256)
    for i, mel in enumerate(mels):
        expected = tiny_gan(torch.from_numpy(mel)).numpy()
        np.testing.assert_allclose(answers[i].as_numpy("audio"), expected, rtol=0, atol=1e-5)


def test_batches_are_cut_where_they_exceed_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server, which does not report the batches inside a call; Triton's module is not needed for it."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("triton_python_backend_utils"))
    backend = runpy.run_path(str(ROOT / "gomin_server/backends/onnxruntime/model.py"))
    model = backend["TritonPythonModel"]()
    model.frame_lengths, model.max_frames = {"mel": 1, "signal": 256}, 40

    def parts(*items: int, samples: int = 0) -> list[list[int]]:
        group = [
            (index, {"mel": np.zeros((count, 4, 10)), "signal": np.zeros((count, 1, samples))})
            for index, count in enumerate(items)
        ]
        return [[index for index, _ in part] for part in model._bounded(group)]

    assert parts(1, 2, 1, 1) == [[0, 1, 2], [3]]
    assert parts(4, 4) == [[0], [1]]
    assert parts(1, 1, samples=20 * 256) == [[0, 1]]
    assert parts(1, 1, samples=20 * 256 + 1) == [[0], [1]]
    model.max_frames = None
    assert parts(4, 4, 4) == [[0, 1, 2]]


def test_the_memory_of_a_long_request_is_given_back(variants: RunningServer) -> None:
    (stub,) = (
        process
        for process in descendants(variants.process.pid)
        if "python_backend_stub" in (command := Path(f"/proc/{process}/cmdline").read_text()) and "/batched/" in command
    )

    def memory(line: str) -> int:
        return 1024 * int(Path(f"/proc/{stub}/status").read_text().partition(f"{line}:")[2].split()[0])

    infer_at_once(variants, "batched", [{"mel": np.zeros((4, 128, 12), np.float32)}])
    before = memory("VmRSS")
    infer_at_once(variants, "batched", [{"mel": np.zeros((4, 128, 500), np.float32)}])

    assert memory("VmHWM") - before > 20_000_000
    assert memory("VmRSS") - before < (memory("VmHWM") - before) / 3


def test_a_bad_request_does_not_affect_its_batch(variants: RunningServer) -> None:
    requests = [{"index": np.array([[i]], np.int64)} for i in (3, 4000, 5, 6)]

    answers = infer_at_once(variants, "lookup", requests)

    assert "model lookup" in str(answers[1])
    assert [answers[i].as_numpy("number").tolist() for i in (0, 2, 3)] == [[[13.0]], [[15.0]], [[16.0]]]
    batches = statistics(variants, "lookup")["batch_stats"]
    assert [(batch["batch_size"], batch["compute_infer"]["count"]) for batch in batches] == [(4, 1)]


@pytest.mark.parametrize("model", REFUSED)
def test_a_setting_that_cannot_be_applied_is_refused(refusals: str, model: str) -> None:
    assert REFUSED[model][1] in refusals
