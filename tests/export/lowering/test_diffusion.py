"""The lowered denoiser equals the denoiser, and ONNX Runtime runs it layer by layer, in fused operators."""

import copy
import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from gomin_export.lowering import LoweredDenoiser
from gomin_export.networks import DiffusionWrapper
from tests.export.lowering.helpers import close


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_lowered_denoiser(small_diffusion: DiffusionWrapper, frames: int, fold: bool) -> None:
    denoiser = copy.deepcopy(small_diffusion.model).double()
    inputs = (
        torch.randn(2, 1, 256 * frames, dtype=torch.float64),
        torch.tensor([0.0, 17.25], dtype=torch.float64),
        1.2 * torch.rand(2, 32, frames, dtype=torch.float64),
    )

    close(LoweredDenoiser(denoiser, fold)(*inputs), denoiser(*inputs))


@pytest.mark.parametrize(("layers", "cycle"), [(1, 1), (5, 2), (30, 10)])
def test_lowered_denoiser_of_other_depths(layers: int, cycle: int) -> None:
    torch.manual_seed(0)
    network = DiffusionWrapper(8, layers, 8, cycle).double().eval()
    inputs = (torch.randn(1, 1, 512).double(), torch.tensor([3.0]).double(), torch.rand(1, 8, 2).double())

    close(LoweredDenoiser(network.model)(*inputs), network.model(*inputs))


def test_the_denoiser_runs_layer_by_layer(repository: Path, tmp_path: Path) -> None:
    """Conditioners and skips are made when they are needed, not all before or after the layers: that takes memory."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(
        repository / "gomin_denoiser/1/model.onnx", options, providers=["CPUExecutionProvider"]
    )
    inputs = {"signal": (1, 1, 512), "timestep": (1, 1), "mel": (1, 32, 2)}
    session.run(None, {name: np.zeros(shape, np.float32) for name, shape in inputs.items()})
    events = json.loads(Path(session.end_profiling()).read_text())

    # convolutions on blocks of channels, where the processor has them, say so in their names
    ran = [
        event["name"].removesuffix("_kernel_time").removesuffix("_nchwc")
        for event in events
        if event["name"].endswith("_kernel_time")
    ]
    convolutions = [(place, name) for place, name in enumerate(ran) if name.endswith("/Conv")]
    layers, skips = (
        [
            [at for at, name in convolutions if f"residual_layers.{layer}/" in name and ("/skip_" in name) == wanted]
            for layer in range(8)
        ]
        for wanted in (False, True)
    )
    # dilated convolutions and conditioner's projections in halves, and but for the last the residual's
    assert [len(places) for places in layers] == [5] * 7 + [4]
    assert [len(places) for places in skips] == [1] * 8
    assert all(skip[0] < min(layer) for skip, layer in zip(skips[:-2], layers[2:], strict=True))
    assert all(max(layer) < min(following) for layer, following in itertools.pairwise(layers))


def test_the_denoisers_sums_and_activations_are_fused(repository: Path, tmp_path: Path) -> None:
    """ONNX Runtime's CPU provider takes them into convolutions only where it knows all shapes to be equal."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(
        repository / "gomin_denoiser/1/model.onnx", options, providers=["CPUExecutionProvider"]
    )
    ran = onnx.load(tmp_path / "optimized.onnx").graph.node
    layers = [node for node in ran if "residual_layers." in node.name]

    assert not {node.op_type for node in layers} & {"Sigmoid", "Tanh", "Split", "Concat"}
    # of each layer's additions that of the timestep is left
    assert sum(node.op_type == "Add" for node in ran if "embedding" not in node.name) <= 8 + 1 + 2
