"""`gomin-export diffusion --target native`: one operator for each layer, and the chain in-process."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from gomin_client.contract import model as contract
from gomin_client.native.library import OperatorLibrary
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.transports.local import LocalTransport
from gomin_export.cli import app
from gomin_export.networks import DiffusionWrapper
from tests.support import assert_fails, invoke

FRAMES = 20


@pytest.fixture(scope="module")
def network() -> DiffusionWrapper:
    torch.manual_seed(0)
    return DiffusionWrapper(16, 5, 20, 3).eval()  # layers of groups of rows that are not full


@pytest.fixture(scope="module")
def models(
    network: DiffusionWrapper, operator_library: OperatorLibrary, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    home = tmp_path_factory.mktemp("native_diffusion")
    torch.save(network.state_dict(), home / "state_dict.pt")
    options = ("--sampler", "fast", "--tile-frames", "9", "--threads", "1")
    repository = home / "models"
    result = invoke(
        app, "diffusion", "--ckpt", home / "state_dict.pt", "--target", "native", *options, "--repository", repository
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return repository


def test_the_graph_has_an_operator_for_each_layer(models: Path) -> None:
    graph = onnx.load(models / "gomin_denoiser/1/model.onnx").graph
    own = [node for node in graph.node if node.domain == "gomin"]

    assert Counter(node.op_type for node in own) == {"ResidualLayer": 5, "Modulation": 2}
    dilations = [node.attribute[0].i for node in own if node.op_type == "ResidualLayer"]
    assert dilations == [1, 2, 4, 1, 2]
    assert "model/residual_layers.3/ResidualLayer" in {node.name for node in own}
    assert "Tanh" not in {node.op_type for node in graph.node}


def test_the_chain_equals_the_reference(models: Path, network: DiffusionWrapper) -> None:
    mel = np.random.default_rng(0).random((2, 16, FRAMES), np.float32)  # in tiles of nine frames
    seeds = np.array([[3], [2**64 - 1]], np.uint64)
    sampler = SamplerSettings("fast").make(network.num_diffusion_steps)
    expected = network(torch.from_numpy(mel), seed=[3, 2**64 - 1], sampler=sampler)
    assert isinstance(expected, torch.Tensor)

    with LocalTransport(models) as transport:
        audio = transport.infer("gomin_diffusion", 1, {"mel": mel, "seed": seeds})["audio"]
        needed = {
            model: contract.ModelContract.from_parameters(model, transport.describe(model).parameters).provenance[1]
            for model in ("gomin_denoiser", "gomin_diffusion")
        }

    np.testing.assert_allclose(audio, expected.numpy(), rtol=0, atol=1e-5)
    assert {model: made.operators for model, made in needed.items()} == {
        "gomin_denoiser": "gomin 1",
        "gomin_diffusion": "",  # it calls the denoiser
    }


def test_there_is_no_target_cpu(tmp_path: Path, models: Path) -> None:
    checkpoint = models.parent / "state_dict.pt"

    result = invoke(app, "diffusion", "--ckpt", checkpoint, "--target", "cpu", "--repository", tmp_path / "models")

    assert_fails(result, 2, "target cpu: network diffusion is exported for any or native only")
