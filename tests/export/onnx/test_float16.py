"""float16 convolutions."""

import json
from pathlib import Path

import onnx
import pytest

from gomin_export.cli import app
from gomin_export.networks import GomiGAN
from gomin_export.onnx.forms import GraphOptions, gan_form
from tests.support import GOLDEN, SHARED_GAN, invoke

CHECKPOINT = GOLDEN / "gan_v3.pt"


@pytest.mark.slow
def test_float16_passes_its_gate_on_a_trained_checkpoint(float16_repository: Path) -> None:
    home = float16_repository

    found = invoke(app, "gan", "--ckpt", SHARED_GAN, "--repository", home, "--precision", "fp16")

    assert found.returncode == 0, found.stderr
    assert "float16 on the CPU is emulated" in found.stderr
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
    verified = invoke(app, "verify", "--repository", home)
    assert verified.returncode == 0, verified.stderr


def test_weights_beyond_float16_are_refused(tiny_gan: GomiGAN, tmp_path: Path) -> None:
    from gomin_export.errors import CheckpointError

    network = GomiGAN.from_pretrained(CHECKPOINT)
    network.resblocks[0].convs1[0].weight.data[0, 0, 0] = 1e6

    with pytest.raises(CheckpointError, match=r"resblocks\.0\.convs1\.0\.weight has values beyond float16's"):
        gan_form(network, GraphOptions("fp16"))
