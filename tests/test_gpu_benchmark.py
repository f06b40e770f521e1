"""What `python -m benchmarks.gpu` is made of, and the program itself on the CPU; the figures are never asserted."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import __main__ as program
from benchmarks.gpu import report, requirements
from benchmarks.gpu.variants import CPU, CUDA, MODELS, SEARCHES, providers, searches, variants
from benchmarks.gpu.worker import GpuWorker, Task, placed
from gomin_client.contract.model import FP16, FP32, GAN_MODEL
from gomin_client.contract.repository import read_config
from gomin_client.transports.local import LocalTransport
from gomin_export import pipeline
from gomin_export.plan import ExportOptions
from tests.support import GOLDEN, ROOT, SHARED_GAN

TENSORRT, ON_CUDA, ON_CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"


def test_the_documentation_has_the_tables_that_the_program_writes() -> None:
    """Or figures could not be pasted. Once a GPU is measured, the rows still have these names."""
    page = (ROOT / "docs/performance.md").read_text()

    assert report.tables({}, variants(CUDA), searches(CUDA)) in page


def test_what_fails_and_what_is_not_measured_is_called_that() -> None:
    pytorch, cuda, *_ = variants(CUDA)
    rounds = {pytorch.name: [0.2, 0.4], cuda.name: [0.1, 0.1]}
    timed = {name: {"seconds": seconds[0], "seconds_of_rounds": seconds} for name, seconds in rounds.items()}
    gate = {"passed": 20, "cases": 21, "max_abs_error": 2e-5, "min_snr_db": 60.04}
    stream = {"times_real_time": 12.34, "latency_s": {"p50": 0.08}}
    results: dict[str, Any] = {
        "speed": {"gan-1s": {**timed, variants(CUDA)[2].name: report.FAILED}},
        "parity": {GAN_MODEL: {cuda.name: gate, pytorch.name: {**gate, "passed": 21}}},
        "lengths": {"new": {SEARCHES[0].name: {"seconds": 0.0012}}},
        "streams": {f"{cuda.name}, 2": {"4": stream}},
    }

    lines = report.tables(results, variants(CUDA), SEARCHES).splitlines()

    assert "| CUDA, float32 | 100.00 (3.00 ×) | not measured | not measured |" in lines  # the median of 2 and 4
    assert "| CUDA, TF32 | failed | not measured | not measured |" in lines
    assert "| CUDA, float32 | 2.0e-05, 60.0 dB, 20 of 21 | not measured |" in lines
    assert "| PyTorch, float32 | 2.0e-05, 60.0 dB, passes | not measured |" in lines
    assert "| cuDNN heuristic | 1.20 | not measured | not measured |" in lines
    assert "| CUDA, float32 | 2 | not measured | not measured | 12.3 ×, 80 ms | not measured |" in lines


def test_the_providers_get_the_settings_of_config_pbtxt(repository: Path, tmp_path: Path) -> None:
    found = {
        variant.name: providers(variant, repository, GAN_MODEL, 938, tmp_path)
        for variant in (*variants(CUDA)[1:], *SEARCHES)
    }

    assert found["CUDA, float32"] == [
        (ON_CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}),
        (ON_CPU, {}),
    ]
    assert found["CUDA, TF32"][0][1]["use_tf32"] == "1"
    assert found["cuDNN exhaustive"][0][1]["cudnn_conv_algo_search"] == "EXHAUSTIVE"
    assert found["cuDNN default"][0][1]["cudnn_conv_algo_search"] == "DEFAULT"
    assert [name for name, _ in found["TensorRT, float16"]] == [TENSORRT, ON_CUDA, ON_CPU]
    assert found["TensorRT, float16"][0][1] == {
        "trt_profile_min_shapes": "mel:1x128x1",
        "trt_profile_opt_shapes": "mel:4x128x512",
        "trt_profile_max_shapes": "mel:16x128x938",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(tmp_path),
    }
    shapes = providers(variants(CUDA)[4], repository, MODELS[1], 94, tmp_path)[0][1]["trt_profile_max_shapes"]
    assert sorted(shape.partition(":")[0] for shape in shapes.split(",")) == ["mel", "signal", "timestep"]


def test_no_operator_on_data_may_run_on_the_cpu_instead() -> None:
    used = {(TENSORRT, "TRTKernel"): 1, (ON_CUDA, "Where"): 2, (ON_CPU, "Shape"): 3}

    assert placed(used, TENSORRT) == {TENSORRT: 1, ON_CUDA: 2, ON_CPU: 3}
    assert placed({(ON_CPU, "Conv"): 1}, ON_CPU) == {ON_CPU: 1}
    with pytest.raises(SystemExit, match="asked for CUDAExecutionProvider, but the CPU ran Conv, Sin"):
        placed({**used, (ON_CPU, "Sin"): 1, (ON_CPU, "Conv"): 1}, ON_CUDA)
    with pytest.raises(SystemExit, match="CUDAExecutionProvider ran no operator; the operators ran on CPUExec"):
        placed({(ON_CPU, "Shape"): 1}, ON_CUDA)


def test_a_contender_answers_what_the_model_answers(repository: Path) -> None:
    contract = read_config(repository / GAN_MODEL / "config.pbtxt")
    task = Task(GAN_MODEL, str(repository / GAN_MODEL / "1/model.onnx"), contract, [(ON_CPU, {})], CPU)
    mel = np.random.default_rng(0).random((2, 128, 9), np.float32)

    worker = GpuWorker(task, {"OMP_NUM_THREADS": "1"})
    made = worker.run({"mel": mel})
    seconds = worker.call(7).elapsed_s
    worker.close()

    with LocalTransport(repository) as transport:
        np.testing.assert_array_equal(made, transport.infer(GAN_MODEL, 1, {"mel": mel})["audio"])
    assert seconds > 0
    assert set(worker.operators) == {ON_CPU}
    with pytest.raises(SystemExit, match="a contender ended"):
        GpuWorker(replace(task, providers=[("NoSuchProvider", {})]), {})


def test_a_machine_without_a_gpu_is_told_everything_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_driver(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", no_driver)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    with pytest.raises(SystemExit) as ended:
        program.main(["--output", str(tmp_path / "bench"), "--skip", "server"])

    sentences = str(ended.value).splitlines()
    assert [sentence.split(":")[0] for sentence in sentences] == [
        "- no NVIDIA driver",
        sentences[1].split(":")[0],
    ]
    assert "cannot use CUDA: install a build for CUDA from pytorch.org, or leave it out with --skip" in sentences[1]
    assert "cannot be measured" in capsys.readouterr().err
    assert not (tmp_path / "bench").exists()
    assert requirements.missing(CPU, {"server"}) == []


def test_a_provider_that_cannot_be_loaded_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime leaves it out of the session, and runs the model on the CPU."""
    import onnxruntime

    class OnTheCpu:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def get_providers(self) -> list[str]:
            return [ON_CPU]

    monkeypatch.setattr("ctypes.CDLL", lambda _: None)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, ON_CUDA, ON_CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", OnTheCpu)

    (sentence,) = requirements.missing(CUDA, {"server", "pytorch"})
    assert sentence.startswith("ONNX Runtime cannot use CUDA")
    monkeypatch.setattr(requirements, "_runs", lambda provider: provider == ON_CUDA)
    (sentence,) = requirements.missing(CUDA, {"server", "pytorch"})
    assert sentence.startswith("ONNX Runtime cannot use TensorRT")
    assert "--skip tensorrt" in sentence
    assert requirements.missing(CUDA, {"server", "pytorch", "tensorrt"}) == []


@pytest.mark.slow
@pytest.mark.server
def test_the_program_runs_to_its_end_on_the_cpu(
    repository: Path,
    float16_repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Small networks, with a real server; without PyTorch's contenders, to save time."""
    gan = ["gomin_mel", "gomin_gan", "gomin_reconstruct"]
    there = {
        ("gan", FP32): (repository, gan),
        ("gan", FP16): (float16_repository, gan),
        ("diffusion", FP32): (repository, ["*diffusion", "gomin_denoiser"]),
    }
    export = pipeline.export

    def export_again(name: str, checkpoint: Path, home: Path, options: ExportOptions) -> None:
        """By the recipe of exports that other tests use: only settings are written. Of the denoiser in float16, all."""
        source, patterns = there.pop((name, options.graph.precision), (home, []))
        for model in {path for pattern in patterns for path in source.glob(pattern)}:
            shutil.copytree(model, home / model.name)
        before = {path: path.stat().st_ino for path in home.glob("*/*/model.onnx")}
        export(name, checkpoint, home, options)
        assert patterns == [] or {path: path.stat().st_ino for path in home.glob("*/*/model.onnx")} == before

    monkeypatch.setattr(pipeline, "export", export_again)
    home = tmp_path / "bench"
    checkpoints = ["--gan-ckpt", str(SHARED_GAN), "--diffusion-ckpt", str(GOLDEN / "diffusion_small.pt")]
    options = ["--device", "cpu", "--quick", "--rounds", "1", "--seconds", "0", "--skip", "pytorch"]

    program.main([*options, *checkpoints, "--output", str(home)])

    results = json.loads((home / "gpu.json").read_text())
    page = (home / "gpu.md").read_text()
    names = [variant.name for variant in variants(CPU)[1:]]
    assert results["failures"] == []
    assert page in capsys.readouterr().out
    assert "These figures mean nothing" in page
    for name in names:
        for part in report.SPEEDS:
            assert results["speed"][part][name]["seconds"] > 0
        for model in MODELS:
            entry = results["parity"][model][name]
            assert entry["passed"] == entry["cases"] > 20
            assert set(entry["operators"]) == {ON_CPU}
        assert results["streams"][f"{name}, 1"]["8"]["requests"] >= 8
    assert [set(results["lengths"][part]) for part in report.LENGTHS] == [{names[0]}] * 3
