"""Exports through the gate: what it refuses, what is placed, and exports that find their models in place."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from gomin_client.contract.model import ModelContract
from gomin_client.errors import UsageError
from gomin_client.mel import features
from gomin_client.mel.features import MelConfig
from gomin_export import pipeline, plan
from gomin_export.errors import ParityError
from gomin_export.networks import GomiGAN
from gomin_export.onnx import export as onnx_export
from gomin_export.onnx import front_end
from gomin_export.onnx.forms import GraphOptions, OnnxForm
from gomin_export.plan import ExportOptions
from gomin_export.repository import fingerprint
from gomin_export.repository.config import without_provenance
from tests.support import GOLDEN

pytestmark = pytest.mark.long

CHECKPOINT = GOLDEN / "gan_v3.pt"
Tamper = Callable[[onnx.ModelProto], None]


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


def test_the_gate_catches_another_front_end(
    tampered: Callable[[Tamper], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Even if a lax tolerance is asked for, which is meant for the network."""
    serialized = front_end.serialized

    def louder(described: ModelContract) -> bytes:
        model = onnx.load_from_string(serialized(described))
        (filters,) = (tensor for tensor in model.graph.initializer if tensor.name == "filters_per_floor")
        filters.raw_data = (np.frombuffer(filters.raw_data, np.float64) * 1.001).tobytes()
        return bytes(model.SerializeToString())

    monkeypatch.setattr(front_end, "serialized", louder)
    with pytest.raises(ParityError, match=r"gomin_mel differs from librosa in \d+ of 30 cases"):
        tampered(lambda _: None, ExportOptions(atol=0.5))  # type: ignore[call-arg]
    assert list(tmp_path.iterdir()) == []


def test_the_gate_catches_an_error_that_the_client_shares(
    tampered: Callable[[Tamper], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = features.mel_filters

    def shifted(config: MelConfig) -> np.ndarray:
        return np.roll(right(config), 1, axis=1)

    monkeypatch.setattr(features, "mel_filters", shifted)
    with pytest.raises(ParityError, match=r"gomin_mel differs from librosa in \d+ of 30 cases"):
        tampered(lambda _: None)  # type: ignore[call-arg]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('model_name: "gomin_gan"', 'model_name: "gomin_gone"', "gomin_reconstruct differs .* calls gomin_gone"),
        ('value: "reconstruction"', 'value: "sound"', "gomin_reconstruct differs .* has no tensor reconstruction"),
        (
            '{ key: "mel" value: "mel" }\n      output',
            '{ key: "mel" value: "audio" }\n      output',
            "gomin_reconstruct differs",
        ),
    ],
)
def test_the_gate_catches_an_ensemble_that_is_put_together_wrongly(
    tampered: Callable[[Tamper], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, old: str, new: str, words: str
) -> None:
    rendered = plan.config_text

    def put_together_wrongly(*arguments: Any) -> str:
        text = rendered(*arguments)
        return text.replace(old, new) if "ensemble_scheduling" in text else text

    monkeypatch.setattr(plan, "config_text", put_together_wrongly)
    with pytest.raises(ParityError, match=words):
        tampered(lambda _: None)
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


def test_a_network_is_not_exported_for_a_target_that_it_does_not_have(tmp_path: Path) -> None:
    options = ExportOptions(graph=GraphOptions(target="cpu"))

    with pytest.raises(UsageError, match="target cpu: network diffusion is exported for any or native only"):
        pipeline.export("diffusion", GOLDEN / "diffusion_small.pt", tmp_path / "models", options)

    assert not (tmp_path / "models").exists()
