"""Activations as operators of our own: the network with them equals the reference, and nothing of them is left over."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from gomin_client.native.library import OperatorLibrary
from gomin_export.lowering import LoweredGAN
from gomin_export.lowering.activations import FoldedSnake, HalfFoldedSnake, PolyphaseSnake
from gomin_export.lowering.native import (
    NativeAntiAliasedSnake,
    NativePhasedResBlock,
    NativeSnake,
    NativeUpsampling,
    with_operators,
)
from gomin_export.lowering.polyphase import PhasedResBlock, from_phases, to_phases
from gomin_export.networks import GomiGAN
from gomin_export.networks.gan import Snake
from gomin_export.onnx import export as onnx_export
from gomin_export.onnx.forms import GraphOptions, gan_form
from tests.export.lowering.helpers import CHANNELS, block, close, signal, wide_gan


@pytest.mark.parametrize("length", [1, 2, 3, 5, 12, 50])
def test_operators_equal_the_modules_that_they_replace(length: int) -> None:
    x, made = signal(length), block(3)
    polyphase = PolyphaseSnake(made.lpf, made.snakes1[0], fold=True)  # type: ignore[arg-type]
    gain = torch.linspace(-2, 2, CHANNELS, dtype=torch.float64)

    close(NativeAntiAliasedSnake(polyphase)(x), polyphase(x))
    close(NativeSnake()(x), FoldedSnake()(x), 0)
    close(NativeSnake(gain)(x), HalfFoldedSnake(gain, torch.float64)(x), 0)


@pytest.mark.parametrize("kernel", [3, 7, 11])
@pytest.mark.parametrize("length", [4, 8, 52])
def test_a_block_on_phases(length: int, kernel: int) -> None:
    original = block(kernel)

    made = NativePhasedResBlock(PhasedResBlock(original))

    close(from_phases(made(to_phases(signal(length)))), original(signal(length)), 1e-11)


@pytest.mark.parametrize("stride", [2, 4, 6])
@pytest.mark.parametrize("bias", [True, False])
def test_upsampling_with_film(stride: int, bias: bool) -> None:
    torch.manual_seed(stride)
    conv = torch.nn.ConvTranspose1d(5, 3, 2 * stride, stride, padding=stride // 2, bias=bias).double()
    made = NativeUpsampling(conv)

    for length in (1, 2, 7):
        x = torch.randn(2, 5, length, dtype=torch.float64)
        scale, shift = torch.randn(2, 2, 3, stride * length, dtype=torch.float64)
        close(made(x), conv(x))
        close(made(x, torch.cat((scale, shift), dim=1)), (1 + scale) * conv(x) + shift)


def test_upsampling_of_another_form_is_refused() -> None:
    for kernel, stride, padding in [(4, 2, 0), (5, 2, 1), (6, 3, 1)]:
        with pytest.raises(ValueError, match="expected 2s, s, s/2; s even"):
            NativeUpsampling(torch.nn.ConvTranspose1d(5, 3, kernel, stride, padding=padding))


@pytest.fixture(scope="module")
def phased_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phased") / "model.onnx"
    onnx_export.write(gan_form(wide_gan(96), GraphOptions(target="native")), path, {})
    return path


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (3, 2), (1, 50)])
def test_the_graph_of_a_network_on_phases(
    phased_graph: Path, operator_library: OperatorLibrary, batch: int, frames: int
) -> None:
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(operator_library.path))
    session = onnxruntime.InferenceSession(phased_graph, options, providers=["CPUExecutionProvider"])
    mel = torch.rand(batch, 8, frames)

    (audio,) = session.run(None, {"mel": mel.numpy()})

    close(torch.from_numpy(audio), wide_gan(96)(mel), 1e-6)


def test_a_pair_of_convolutions_on_phases_is_three_passes_and_two_products(phased_graph: Path) -> None:
    """Nothing else reads or writes a whole signal: Snakes and sums are parts of the filters."""
    nodes = [node for node in onnx.load(phased_graph).graph.node if node.name.startswith("resblocks.0/")]
    count = Counter(node.op_type for node in nodes)

    assert [count[name] for name in ("SnakeFilter", "Conv", "RowFilterPair", "RowFilter")] == [2, 4, 2, 2]
    assert not {"Add", "Sin", "Mul", "Snake", "AntiAliasedSnake", "Transpose"} & count.keys()


def test_a_snake_with_its_factors_outside_the_filters_is_refused() -> None:
    made = block(3)
    with pytest.raises(ValueError, match="not in the filters"):
        NativeAntiAliasedSnake(PolyphaseSnake(made.lpf, made.snakes1[0], fold=False))  # type: ignore[arg-type]


@pytest.mark.parametrize("network", ["tiny", "wide"])
def test_the_network_with_operators_equals_the_network(network: str, tiny_gan: GomiGAN) -> None:
    original = (copy.deepcopy(tiny_gan) if network == "tiny" else wide_gan()).double()
    lowered = with_operators(LoweredGAN(original, winograd=True))
    mel = 1.2 * torch.rand(2, original.n_mels, 5, dtype=torch.float64)

    assert not any(
        isinstance(module, (PolyphaseSnake, FoldedSnake, HalfFoldedSnake, Snake)) for module in lowered.modules()
    )
    close(lowered(mel), original(mel))


def test_the_graph_has_a_node_for_each(native_repository: Path) -> None:
    model = onnx.load(native_repository / "gomin_gan/1/model.onnx")
    own = [node for node in model.graph.node if node.domain]

    assert {(opset.domain, opset.version) for opset in model.opset_import} == {("", 20), ("gomin", 1)}
    assert {node.op_type for node in own} >= {"Snake", "AntiAliasedSnake"}
    assert {len(node.input) for node in own} >= {1, 2, 3}  # without and with a gain, anti-aliased
    assert "resblocks.0/layers.0/SnakeFilter" in {node.name for node in own}
    assert not {"Sin", "ConvTranspose"} & {node.op_type for node in model.graph.node}
    # of the tiny network's two stages; FiLM's first upsampling has no modulation
    assert {len(node.input) for node in own if node.op_type == "Interleave"} == {1, 2}
    # ONNX Runtime infers no shapes of these nodes; two sizes of one name would make it keep memory
    known = {info.name: info.type.tensor_type.shape.dim for info in model.graph.value_info}
    assert known.keys() == {node.output[0] for node in own}
    assert {size.dim_param for sizes in known.values() for size in sizes} == {""}
    assert all(any(size.dim_value > 0 for size in sizes) for sizes in known.values())
