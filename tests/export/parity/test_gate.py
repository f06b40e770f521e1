"""The gate: what it lets pass, what it catches, and what it says."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from gomin_client.errors import UsageError
from gomin_export import pipeline
from gomin_export.errors import ParityError
from gomin_export.networks import GomiGAN, registry
from gomin_export.onnx import export as onnx_export
from gomin_export.onnx.forms import GraphOptions, OnnxForm, gan_form
from gomin_export.parity import gate, record
from gomin_export.parity.gate import Case, Outcome, Report, Tolerance
from gomin_export.plan import ExportOptions
from gomin_export.repository import fingerprint
from gomin_export.repository.config import without_provenance
from gomin_export.repository.fingerprint import sampling_modules
from tests.support import DEMO_CHECKPOINT, GOLDEN, assert_fails, run

CHECKPOINT = GOLDEN / "gan_v3.pt"
FP32 = Tolerance.of("fp32")
FP16 = Tolerance.of("fp16")

Tamper = Callable[[onnx.ModelProto], None]


def case(output: float = 0.5, torch_error: float = 0.0, items: int = 1) -> Case:
    return Case("case", {"mel": np.zeros((items, 2, 3), np.float32)}, np.full((items, 1, 6), output), torch_error)


def answer(value: float) -> Callable[[gate.Inputs], np.ndarray]:
    return lambda inputs: np.full((len(inputs["mel"]), 1, 6), value, np.float32)


class TestCases:
    @pytest.mark.parametrize(
        ("value", "torch_error", "tolerance", "passes"),
        [
            (0.5, 0.0, FP32, True),
            (0.500009, 0.0, FP32, True),
            (0.500011, 0.0, FP32, False),
            (0.5005, 0.0002, FP32, True),  # a checkpoint with large gains: PyTorch itself is off
            (0.501, 0.0002, FP32, False),
            (0.504, 0.0, FP16, True),
            (0.506, 0.0, FP16, False),  # 38 dB
            (0.5000001, 0.0, Tolerance(1e-5, 150.0), False),
            (math.nan, 1.0, FP32, False),
            (math.inf, 0.0, FP16, False),
        ],
    )
    def test_tolerance(self, value: float, torch_error: float, tolerance: Tolerance, passes: bool) -> None:
        (outcome,) = gate.compare(answer(value), [case(torch_error=torch_error)])

        assert outcome.passes(tolerance) == passes
        assert (outcome.excess(tolerance) <= 1) == passes

    def test_snr(self) -> None:
        (outcome,) = gate.compare(answer(0.505), [case()])
        assert outcome.snr_db == pytest.approx(40, abs=0.01)
        assert gate.compare(answer(0.5), [case()])[0].snr_db == math.inf
        assert gate.compare(answer(0.1), [case(0.0)])[0].snr_db == -math.inf

    def test_large_batches_are_fed_in_parts(self) -> None:
        fed = []

        def infer(inputs: gate.Inputs) -> np.ndarray:
            fed.append(len(inputs["mel"]))
            return answer(0.5)(inputs)

        (outcome,) = gate.compare(infer, [case(items=5)], max_batch_size=2)

        assert fed == [2, 2, 1]
        assert outcome.max_abs_error == 0

    @pytest.mark.parametrize("shape", [(1, 6), (1, 1, 5), (2, 1, 6), (1, 1, 1)])
    def test_another_shape_fails(self, shape: tuple[int, ...]) -> None:
        (outcome,) = gate.compare(lambda _: np.zeros(shape, np.float32), [case(0.0)])

        assert "expected" in outcome.problem
        assert not outcome.passes(FP32)

    def test_another_type_fails(self) -> None:
        (outcome,) = gate.compare(lambda _: np.full((1, 1, 6), 0.5), [case()])

        assert "answered float64" in outcome.problem


class TestReport:
    OUTCOMES = (
        Outcome("fine", 1e-7, 120.0, 1e-7),
        Outcome("bad", 0.1, 10.0, 1e-7),
        Outcome("worse", math.nan, math.nan, 1e-7),
    )

    def test_names_the_worst_case(self) -> None:
        with pytest.raises(
            ParityError, match=r"m differs .* in 2 of 3 cases; the worst is worse: off by nan.* Nothing"
        ):
            Report("m", self.OUTCOMES, FP32, {}).require("Nothing was placed")

    def test_table_has_a_line_for_every_case(self) -> None:
        *_, fine, bad, worse = Report("m", self.OUTCOMES, FP32, {}).table().splitlines()

        assert (fine.split()[0], fine.split()[-1]) == ("fine", "pass")
        assert bad.split() == ["bad", "1.0e-01", "1.0e-07", "10.0", "FAIL"]
        assert worse.split()[-1] == "FAIL"

    def test_there_and_back_through_json(self) -> None:
        outcomes = (
            *self.OUTCOMES[:1],
            Outcome("exact", 0.0, math.inf, 0.0),
            Outcome("absent", math.nan, math.nan, 0.0, "gone"),
        )
        report = Report("m", outcomes, FP16, {"files": {"a": "b"}})
        text = json.dumps(report.to_dict(), allow_nan=False)

        back = Report.from_dict(json.loads(text))

        assert back.outcomes[:2] == list(outcomes[:2])
        assert back.outcomes[2].problem == "gone"
        assert (back.model, back.facts, back.tolerance) == ("m", {"files": {"a": "b"}}, FP16)


def test_parity_json_tells_what_was_compared(repository: Path) -> None:
    report = json.loads((repository / "gomin_gan/1/parity.json").read_text())

    assert report["passed"] is True
    assert report["checkpoint_sha256"] == record.sha256(DEMO_CHECKPOINT)
    assert report["files"] == {
        name: record.sha256(repository / "gomin_gan/1" / name) for name in ("model.onnx", "reference.npz")
    }
    assert report["precision"] == "fp32"
    assert list(report["execution_providers"]) == ["CPUExecutionProvider"]
    assert report["execution_providers"]["CPUExecutionProvider"] > 100  # operators
    assert {"torch", "onnx", "gomin-triton"} <= set(report["recipe"]["packages"])
    assert report["recipe"]["opset"] == onnx_export.OPSET
    assert report["tolerance"] == {"atol": 1e-5, "min_snr_db": None, "times_torch_float32_error": 4}
    names = [case["name"] for case in report["cases"]]
    assert len(names) == len(set(names)) == 21  # the last is windows against the whole
    for word in ("1 × 1 frames, silence", "clipped noise", "music", "uniform in 0 … 1.2", "normal"):
        assert any(word in name for name in names)
    assert all(case["passed"] and case["snr_db"] > 40 and case["max_abs_error"] > 0 for case in report["cases"])


def test_the_denoiser_is_tried_at_all_kinds_of_timesteps(repository: Path) -> None:
    names = [case["name"] for case in json.loads((repository / "gomin_denoiser/1/parity.json").read_text())["cases"]]

    alone = {name.partition("t = ")[2] for name in names if name.startswith("1 × 1 ")}
    assert alone == {"0", "24.75", "49"}
    assert any(name.endswith("t = 24.75, 0, 49") for name in names)


def test_the_whole_chain_is_tried(repository: Path) -> None:
    report = json.loads((repository / "gomin_diffusion/1/parity.json").read_text())

    assert [case["name"] for case in report["cases"]] == ["2 × 3 frames, music and clipped noise, ddpm, 50 steps"]
    assert report["cases"][0]["max_abs_error"] <= 1e-5
    assert set(report["files"]) == {
        "model.py",
        "reference.npz",
        *(f"sampling/{path.name}" for path in sampling_modules()),
    }


@pytest.fixture
def tampered(tiny_repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Exports the tiny GAN with a model.onnx that is changed on its way to the gate."""

    def export_tampered(tamper: Tamper, options: ExportOptions = ExportOptions()) -> None:  # noqa: B008
        def write(_form: OnnxForm, path: Path, _metadata: Mapping[str, str]) -> None:
            model = onnx.load(tiny_repository / "gomin_gan/1/model.onnx")
            tamper(model)
            onnx.save(model, path)

        monkeypatch.setattr(onnx_export, "write", write)
        pipeline.export("gan", CHECKPOINT, tmp_path / "models", options)

    return export_tampered


def weight(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def perturb(model: onnx.ModelProto) -> None:
    tensor = weight(model, "resblocks.3.convs2.1.weight")
    values = np.frombuffer(tensor.raw_data, np.float32).copy()
    values[7] += 0.01
    tensor.raw_data = values.tobytes()


def freeze_frames(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 12


def swap_output(model: onnx.ModelProto) -> None:
    """`audio` becomes what stood before the last tanh, of the same type and shape."""
    last = next(node for node in model.graph.node if "audio" in node.output)
    before = next(node for node in model.graph.node if last.input[0] in node.output)
    last.output[0], before.output[0] = before.output[0], "audio"
    last.input[0] = "audio"


def rename_output(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.output[:] = ["waveform" if name == "audio" else name for name in node.output]
    model.graph.output[0].name = "waveform"


def poison(model: onnx.ModelProto) -> None:
    weight(model, "conv_post.bias").raw_data = np.array([np.nan], np.float32).tobytes()


def break_graph(model: onnx.ModelProto) -> None:
    model.graph.node[3].input[0] = "nothing"


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (perturb, r"gomin_gan differs from PyTorch in \d+ of 21 cases; the worst is \d × \d+ frames"),
        (
            freeze_frames,
            r"mel is tensor\(float\) .* 12\]; expected tensor\(float\) with fixed sizes \[None, 128, None\]",
        ),
        (swap_output, r"gomin_gan differs from PyTorch in \d+ of 21 cases"),
        (rename_output, r"has the tensors \['mel', 'waveform'\]; expected \['audio', 'mel'\]"),
        (poison, r"differs from PyTorch in 21 of 21 cases; .* off by nan"),
        (break_graph, r"ONNX Runtime cannot load it"),
    ],
)
def test_the_gate_catches(
    tampered: Callable[[Tamper], None], tmp_path: Path, tamper: Tamper, words: str, tiny_gan: GomiGAN
) -> None:
    words = words.replace("128", str(tiny_gan.n_mels))
    with pytest.raises(ParityError, match=words):
        tampered(tamper)

    assert list(tmp_path.iterdir()) == []


def test_the_untampered_model_passes(tampered: Callable[[Tamper], None], tmp_path: Path) -> None:
    tampered(lambda _: None)

    assert (tmp_path / "models/gomin_gan/1/model.onnx").is_file()


@pytest.mark.parametrize("options", [ExportOptions(atol=1e-9), ExportOptions(atol=0.0), ExportOptions(min_snr=200.0)])
def test_a_stricter_tolerance_is_kept_to(tampered: Callable[..., None], options: ExportOptions, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="allowed: "):
        tampered(lambda _: None, options)
    assert list(tmp_path.iterdir()) == []


def test_a_laxer_tolerance_lets_more_pass(tampered: Callable[..., None], tmp_path: Path) -> None:
    tampered(perturb, ExportOptions(atol=0.5))

    report = json.loads((tmp_path / "models/gomin_gan/1/parity.json").read_text())
    assert report["tolerance"]["atol"] == 0.5
    assert max(case["max_abs_error"] for case in report["cases"]) > 1e-5


def test_a_failed_gate_leaves_an_existing_repository_as_it_was(
    tampered: Callable[[Tamper], None], tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tampered(lambda _: None)
    before = {path: path.read_bytes() for path in (tmp_path / "models").rglob("*") if path.is_file()}
    monkeypatch.setattr(fingerprint, "find_export", lambda *_: None)

    with pytest.raises(ParityError):
        tampered(perturb)

    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_failure_ends_with_status_4(tmp_path: Path, repository: Path) -> None:
    """Through the command line; the recorded figures are judged anew, so nothing needs to be exported."""
    result = run("gomin-export", "gan", "--ckpt", DEMO_CHECKPOINT, "--repository", repository, "--min-snr", "500")

    assert result.returncode == 4
    assert "gomin_gan differs from PyTorch in 21 of 21 cases" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_float16_passes_its_gate_on_the_demo_checkpoint(tmp_path: Path) -> None:
    home = tmp_path / "models"

    result = run("gomin-export", "gan", "--ckpt", DEMO_CHECKPOINT, "--repository", home, "--precision", "fp16")

    assert result.returncode == 0, result.stderr
    assert "float16 on the CPU is emulated" in result.stderr
    report = json.loads((home / "gomin_gan/1/parity.json").read_text())
    assert report["precision"] == "fp16"
    assert report["tolerance"]["min_snr_db"] == 40
    assert any("silence" in case["name"] for case in report["cases"])
    assert any("clipped" in case["name"] for case in report["cases"])
    assert all(40 <= case["snr_db"] < 100 for case in report["cases"])  # float16 indeed
    model = onnx.load(home / "gomin_gan/1/model.onnx")
    assert {tensor.type.tensor_type.elem_type for tensor in (*model.graph.input, *model.graph.output)} == {
        onnx.TensorProto.FLOAT
    }
    halves = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    assert any(name.startswith("resblocks.0.convs1.0") for name in halves)
    assert not any("snake" in name or "film" in name or "conv_post" in name for name in halves)
    verified = run("gomin-export", "verify", "--repository", home)
    assert verified.returncode == 0, verified.stderr


def test_weights_beyond_float16_are_refused(tiny_gan: GomiGAN, tmp_path: Path) -> None:
    from gomin_export.errors import CheckpointError

    network = GomiGAN.from_pretrained(CHECKPOINT)
    network.resblocks[0].convs1[0].weight.data[0, 0, 0] = 1e6

    with pytest.raises(CheckpointError, match=r"resblocks\.0\.convs1\.0\.weight has values beyond float16's"):
        gan_form(network, GraphOptions("fp16"))


def test_exports_are_identical_and_the_second_is_a_no_op(tiny_repository: Path, tmp_path: Path) -> None:
    home = tmp_path / "models"
    arguments = ("gan", "--ckpt", CHECKPOINT, "--repository", home)
    first = run("gomin-export", *arguments)
    model = home / "gomin_gan/1/model.onnx"
    before = model.stat().st_mtime_ns

    second = run("gomin-export", *arguments)

    assert first.returncode == second.returncode == 0, second.stderr
    assert model.read_bytes() == (tiny_repository / "gomin_gan/1/model.onnx").read_bytes()
    assert "version 1 was made by the same recipe" in second.stderr
    assert second.stdout == first.stdout == f"{home}/gomin_gan/1\n"
    assert model.stat().st_mtime_ns == before
    assert [path.name for path in (home / "gomin_gan").iterdir() if path.is_dir()] == ["1"]


def test_a_changed_file_or_recipe_is_exported_anew(tiny_repository: Path, tmp_path: Path) -> None:
    def planned(options: ExportOptions = ExportOptions()) -> tuple[int, bool]:  # noqa: B008
        plan = pipeline.Export(registry.GAN, CHECKPOINT, tmp_path / "models", options).plan
        return plan.version, plan.exists

    shutil.copytree(tiny_repository, tmp_path / "models")
    assert planned() == (1, True)
    assert planned(ExportOptions(graph=GraphOptions(lowering=False))) == (2, False)
    assert planned(ExportOptions(graph=GraphOptions("fp16"))) == (2, False)
    assert planned(ExportOptions(version=5)) == (5, False)
    assert planned(ExportOptions(version=1)) == (1, True)
    with pytest.raises(UsageError, match="--keep 0"):
        planned(ExportOptions(keep=0))
    (tmp_path / "models/gomin_gan/4").mkdir()
    assert planned(ExportOptions(keep=1)) == (5, False)  # version 1 would be dropped: a way back to an old checkpoint
    said: list[str] = []
    pipeline.export("gan", CHECKPOINT, tmp_path / "models", say=said.append)
    assert said[-1].endswith("nothing to export; but version 4 is newer: --version 5 makes it the newest again")
    (tmp_path / "models/gomin_gan/4").rmdir()
    for file in ("reference.npz", "parity.json", "model.onnx"):
        path = tmp_path / "models/gomin_gan/1" / file
        intact = path.read_bytes()
        path.write_bytes(intact[:-2])
        assert planned() == (2, False), file
        path.write_bytes(intact)
    assert planned() == (1, True)


def test_a_no_op_mends_the_config(tiny_repository: Path, tmp_path: Path) -> None:
    """Provenance that is lost, or a config.pbtxt that is, comes back from gate.json."""
    home = tmp_path / "models"
    shutil.copytree(tiny_repository, home)
    config = home / "gomin_gan/config.pbtxt"
    text = config.read_text()

    for broken in (without_provenance(text), None):
        config.unlink() if broken is None else config.write_text(broken)
        pipeline.export("gan", CHECKPOINT, home)
        assert config.read_text() == text
    config.write_text(text + "\n\n")
    pipeline.export("gan", CHECKPOINT, home)
    assert config.read_text() == text + "\n\n"  # as it is meant, nothing to write


def test_reports_can_be_read_back(repository: Path) -> None:
    for expected in record.read_vectors(repository / "gomin_denoiser/1"):
        assert set(expected.inputs) == {"signal", "timestep", "mel"}
        assert expected.output.dtype == np.float64
        assert dataclasses.replace(expected, name="x").torch_error > 0


def test_bad_options_are_usage_errors(tmp_path: Path) -> None:
    common = ("gan", "--ckpt", DEMO_CHECKPOINT, "--repository", tmp_path / "models")
    for option, value, words in [
        ("--precision", "int8", "--precision int8: expected fp32 or fp16"),
        ("--atol", "-1", "--atol -1.0: expected 0 or more"),
        ("--atol", "inf", "--atol inf: expected 0 or more"),
        ("--min-snr", "nan", "--min-snr nan: expected a number of dB"),
        ("--max-batch-size", "3000000000", "expected at most 10000000"),
        ("--warm-up", "99999999999999999999", "expected 1 to 10000000 frames"),
        ("--max-batch-size", "0", "--max-batch-size 0: expected at least 1"),
        ("--warm-up", "64x", "--warm-up 64x: expected FRAMES, BATCHxFRAMES, or none"),
        ("--warm-up", "32x64", "--warm-up 32x64: expected 1 to 10000000 frames, and 1 to 16 items"),
        ("--accelerator", "tpu", "--accelerator tpu: expected cuda, tensorrt, openvino"),
    ]:
        assert_fails(run("gomin-export", *common, option, value), 2, words)
    with pytest.raises(UsageError, match="--version 99999999999: expected 1 to 2147483647"):
        pipeline.Export(registry.GAN, CHECKPOINT, tmp_path / "models", ExportOptions(version=99999999999))
    assert list(tmp_path.iterdir()) == []
