"""Every lowered form equals its original, in float64, for all lengths, edges and α."""

import copy
import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from gomin_export.lowering import LoweredDenoiser, LoweredGAN
from gomin_export.lowering.activations import FoldedSnake, HalfFoldedSnake, PolyphaseSnake, UnfoldedSnake, frequencies
from gomin_export.lowering.folding import scale_inputs, scale_outputs
from gomin_export.networks import DiffusionWrapper, GomiGAN
from gomin_export.networks.gan import ResBlock, Snake
from gomin_export.onnx import export as onnx_export
from gomin_export.onnx.forms import GraphOptions, gan_form

# one channel each
ALPHAS = torch.tensor([1e-4, -1e-4, 1e-3, -0.01, 0.1, -0.5, 1.0, -2.0, 10.0, -10.0, 0.0], dtype=torch.float64)
TOLERANCE = 1e-12
LENGTHS = [*range(1, 20), 31, 64, 101]


def close(actual: Tensor, expected: Tensor) -> None:
    np.testing.assert_allclose(actual.numpy(), expected.numpy(), rtol=0, atol=TOLERANCE)


def snake() -> Snake:
    module = Snake(len(ALPHAS)).double()
    module.alpha.data = ALPHAS[:, None].clone()
    return module


def signal(length: int) -> Tensor:
    return 3 * torch.randn(2, len(ALPHAS), length, dtype=torch.float64, generator=torch.Generator().manual_seed(length))


def scatter_alphas(network: torch.nn.Module) -> None:
    """Give every Snake α between 1e-4 and 10 of either sign, and one of 0."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, Snake):
            size = 10 ** (5 * torch.rand(module.alpha.shape, generator=generator, dtype=torch.float64) - 4)
            module.alpha.data = size * torch.randn(module.alpha.shape, generator=generator, dtype=torch.float64).sign()
            module.alpha.data[0] = 0


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("length", LENGTHS)
def test_polyphase_snake_is_the_anti_aliased_snake(length: int, fold: bool) -> None:
    block = ResBlock(len(ALPHAS), 3, [1], filter_rate=12000.0).double()
    block.lpf *= torch.rand(len(ALPHAS), 1, 12, dtype=torch.float64) + 0.5  # no symmetry to lean on
    x = signal(length)

    close(PolyphaseSnake(block.lpf, snake(), fold)(x), block.anti_aliased(snake(), x))


def test_folded_snakes_are_snakes_between_scaled_layers() -> None:
    x = signal(50)
    alpha = frequencies(snake())[:, None]

    close(FoldedSnake()(alpha * x) / alpha, snake()(x))
    close(HalfFoldedSnake(alpha[:, 0], torch.float64)(x) / alpha, snake()(x))
    close(UnfoldedSnake(snake())(x), snake()(x))


def test_unfolded_snake_is_as_accurate_as_float32_allows() -> None:
    """(1 - cos 2αx)/(2α), the equal form, is 4e-5 off for α = 0.001."""
    x = signal(2000)

    actual = UnfoldedSnake(snake().float())(x.float()).double()

    np.testing.assert_allclose(actual.numpy(), snake()(x).numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "layer", [torch.nn.Linear(4, 6), torch.nn.Conv1d(4, 6, 3), torch.nn.ConvTranspose1d(4, 6, 4, stride=2)]
)
def test_scaled_layers(layer: torch.nn.Linear | torch.nn.Conv1d | torch.nn.ConvTranspose1d) -> None:
    layer = layer.double()
    shape = (2, 4) if isinstance(layer, torch.nn.Linear) else (2, 4, 9)
    axes = (slice(None), *[None] * (len(shape) - 2))
    x, into, out = torch.randn(shape).double(), torch.rand(4).double() + 0.5, torch.rand(6).double() + 0.5

    close(scale_inputs(copy.deepcopy(layer), 1 / into)(x * into[axes]), layer(x))
    close(scale_outputs(copy.deepcopy(layer), out)(x), layer(x) * out[axes])


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("frames", [1, 2, 3, 5, 13, 24])
def test_lowered_gan(tiny_gan: GomiGAN, frames: int, fold: bool) -> None:
    network = copy.deepcopy(tiny_gan).double()
    scatter_alphas(network)
    mel = 1.2 * torch.rand(2, network.n_mels, frames, dtype=torch.float64)

    close(LoweredGAN(network, fold)(mel), network(mel))


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


def test_the_reference_network_is_not_touched(tiny_gan: GomiGAN, small_diffusion: DiffusionWrapper) -> None:
    for network in (tiny_gan, small_diffusion):
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        LoweredGAN(network) if isinstance(network, GomiGAN) else LoweredDenoiser(network.model)
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_exported_graph_is_lowered_and_named_by_block(tiny_repository: str) -> None:
    graph = onnx.load(f"{tiny_repository}/gomin_gan/1/model.onnx").graph
    operators = {node.op_type for node in graph.node}
    names = [node.name for node in graph.node]

    # nothing that stuffs zeros, takes every second sample or computes with shapes
    assert operators == {"Add", "Conv", "ConvTranspose", "Mul", "Sin", "Split", "Tanh"}
    assert len(set(names)) == len(names)
    assert "resblocks.0/snakes1.0/snake/Sin" in names
    assert "film_generator.convs.0/ConvTranspose" in names
    blocks = {name.partition("/")[0].partition(".")[0] for name in names if "/" in name}
    assert blocks == {
        *("conv_pre", "conv_post", "film_generator", "films", "resblocks", "snake_post", "snake_ups", "ups")
    }
    known = {value.name for value in (*graph.input, *graph.initializer)} | {v for n in graph.node for v in n.output}
    assert {value for node in graph.node for value in node.input} <= known


def test_no_lowering_exports_the_plain_form(tiny_gan: GomiGAN, tmp_path: object) -> None:
    path = tmp_path / "plain.onnx"  # type: ignore[operator]

    onnx_export.write(gan_form(tiny_gan, GraphOptions(lowering=False)), path, {})

    assert {"Concat", "Slice", "Pow"} <= {node.op_type for node in onnx.load(path).graph.node}


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
