"""The operators of the denoiser against the network's own layers in float64, for each instruction set."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gomin_export.lowering.diffusion import LoweredResidualLayer, halves
from gomin_export.lowering.residual import NativeFilm, NativeResidualLayer
from gomin_export.networks.diffusion import EMBEDDING_WIDTH, ResidualLayer
from tests.native.test_operators import Array, Operator, instruction_set, noise  # noqa: F401

CHANNELS, BANDS = 8, 5  # two groups of rows, of which the second is not full
DILATIONS = (1, 2, 4, 8, 16, 32, 64, 256, 4096)


class Layer:
    """A layer with random weights, and its operator."""

    def __init__(self, library: Path, dilation: int, last: bool = False, threads: int = 1) -> None:
        torch.manual_seed(dilation)
        self.reference = ResidualLayer(BANDS, CHANNELS, dilation)
        self.last = last
        native = NativeResidualLayer(LoweredResidualLayer(self.reference, gain=1.0, shrink=1.0, last=last))
        self.weights = [
            getattr(native, name).numpy() for name in ("dilated", "bias", "projection", "output", "output_bias")
        ]
        self.operator = Operator(library, "ResidualLayer", 8, threads, dilation=dilation)

    def inputs(self, samples: int, items: int = 2) -> tuple[Array, Array, Array]:
        """state, embedding, conditioner."""
        shapes = (items, 2 * CHANNELS, samples), (items, EMBEDDING_WIDTH), (items, BANDS, samples)
        state, embedding, conditioner = (noise(*shape) for shape in shapes)
        return state, embedding, conditioner

    def expected(self, state: Array, embedding: Array, conditioner: Array) -> Array:
        """The layer's result, whose signal the reference divides by √2."""
        layer = self.reference.double()
        with torch.no_grad():
            x, skips = torch.from_numpy(state).double().chunk(2, dim=1)
            arrays = (torch.from_numpy(array).double() for array in (conditioner, embedding))
            after, skip = layer(x, *arrays)
        layer.float()
        after = x if self.last else after * np.sqrt(2)
        result: Array = torch.cat((after, skips + skip), dim=1).numpy()
        return result

    def __call__(self, state: Array, embedding: Array, conditioner: Array) -> Array:
        with torch.no_grad():
            step = self.reference.diffusion_projection(torch.from_numpy(embedding)).numpy()
        return self.operator(state, step, conditioner, *self.weights)


@pytest.mark.parametrize("dilation", DILATIONS)
def test_residual_layer(library: Path, instruction_set: str, dilation: int) -> None:  # noqa: F811
    layer = Layer(library, dilation)

    for samples in (1, 3, 63, 256, 300, 2100):
        inputs = layer.inputs(samples)
        np.testing.assert_allclose(
            layer(*inputs), layer.expected(*inputs), rtol=0, atol=1e-5, err_msg=f"{samples} samples"
        )


def test_the_last_layer_has_no_residual(library: Path) -> None:
    layer = Layer(library, 4, last=True)
    inputs = layer.inputs(500)

    np.testing.assert_allclose(layer(*inputs), layer.expected(*inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dilation", [2, 128])
def test_threads_and_items_do_not_change_a_value(library: Path, dilation: int) -> None:
    one, two = (Layer(library, dilation, threads=threads) for threads in (1, 2))
    state, _, conditioner = one.inputs(40_000, items=3)
    tensors = (state, noise(3, CHANNELS), conditioner)

    together = one.operator(*tensors, *one.weights)

    np.testing.assert_array_equal(two.operator(*tensors, *one.weights), together)
    alone = one.operator(*(tensor[1:2] for tensor in tensors), *one.weights)
    np.testing.assert_array_equal(alone, together[1:2])


class Gate:
    """A layer of one channel that adds sigmoid(gate)·tanh(filtered) to a signal of 0."""

    def __init__(self, library: Path) -> None:
        self.operator = Operator(library, "ResidualLayer", 8)
        self.dilated, self.projection, self.output, self.bias = (
            np.zeros(shape, np.float32) for shape in ((6, 1, 2, 1, 6), (1, 2, 2, 6), (1, 2, 1, 6), (1, 2, 6))
        )
        self.projection[0, 0, 0, 0] = self.projection[0, 1, 1, 0] = self.output[0, 0, 0, 0] = 1

    def __call__(self, conditioner: Array, gate: float = 0, filtered: float = 0) -> Array:
        """Args: conditioner: (1, 2, N), gate and filtered; gate, filtered: what is added to them, as biases."""
        bias = self.bias.copy()
        bias[0, :, 0] = gate, filtered
        inputs = np.zeros_like(conditioner), np.zeros((1, 1), np.float32), conditioner
        return self.operator(*inputs, self.dilated, bias, self.projection, self.output, self.bias)[0, 0]


def test_the_gate_is_as_accurate_as_float32_allows(library: Path, instruction_set: str) -> None:  # noqa: F811
    generator = np.random.default_rng(0)
    shape = (1, 2, 100_002)
    conditioner = (generator.standard_normal(shape) * 10 ** generator.uniform(-6, 2, shape)).astype(np.float32)
    gate, filtered = conditioner[0].astype(np.float64)
    layer, nothing = Gate(library), np.zeros((1, 2, 1), np.float32)

    exact = np.tanh(filtered) / (1 + np.exp(-np.clip(gate, -80, None)))
    np.testing.assert_allclose(layer(conditioner), exact, rtol=6e-7, atol=1e-30)
    for value, sigmoid in ((np.inf, 1), (-np.inf, 0), (np.nan, np.nan), (0, 0.5), (1, 0.73105858)):
        np.testing.assert_allclose(layer(nothing, 1, value), np.tanh([value]) * 0.73105858, rtol=1e-6)
        np.testing.assert_allclose(layer(nothing, value, 1), [sigmoid * 0.76159416], rtol=0, atol=1e-7)


@pytest.mark.parametrize("samples", [1, 63, 300, 1500])
def test_modulation(library: Path, instruction_set: str, samples: int) -> None:  # noqa: F811
    torch.manual_seed(0)
    film = torch.nn.Conv1d(BANDS, 2 * CHANNELS, 1)
    native = NativeFilm(halves(film))
    state, conditioner = noise(2, 2 * CHANNELS, samples), noise(2, BANDS, samples)
    tensors = (state, conditioner, native.projection.numpy(), native.bias.numpy())
    with torch.no_grad():
        scale, shift = film.double()(torch.from_numpy(conditioner).double()).chunk(2, dim=1)
        x, skips = torch.from_numpy(state).double().chunk(2, dim=1)
    expected = torch.cat((scale * x + shift, skips), dim=1).numpy()

    one, two = (Operator(library, "Modulation", 4, threads)(*tensors) for threads in (1, 2))

    np.testing.assert_allclose(one, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(two, one)
    with pytest.raises(Exception, match=r"gomin Modulation: expected state \(B, 2R, N\) and conditioner"):
        Operator(library, "Modulation", 4)(noise(1, 3, 9), noise(1, BANDS, 9), *tensors[2:])
    with pytest.raises(Exception, match="gomin Modulation: the weights do not have R channels and M bands"):
        Operator(library, "Modulation", 4)(*tensors[:2], noise(1, 2, BANDS, 6), tensors[3])


@pytest.mark.parametrize(("items", "samples"), [(0, 300), (2, 0)])
def test_a_residual_layer_of_no_values(library: Path, items: int, samples: int) -> None:
    layer = Layer(library, 1)

    assert layer(*layer.inputs(samples, items)).shape == (items, 2 * CHANNELS, samples)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({0: (2, 16, 9)}, r"expected state \(B, 2R, N\), step \(B, R\) and conditioner \(B, M, N\)"),
        ({1: (1, CHANNELS)}, r"expected state \(B, 2R, N\)"),
        ({2: (2, BANDS, 10, 1)}, r"expected state \(B, 2R, N\)"),
        ({3: (6, 2, 2, CHANNELS, 5)}, "the weights do not have R channels and M bands"),
        ({7: (2, 2, 5)}, "the weights do not have R channels and M bands"),
    ],
)
def test_wrong_shapes_are_refused(library: Path, changed: dict[int, tuple[int, ...]], message: str) -> None:
    layer = Layer(library, 1)
    state, _, conditioner = layer.inputs(10)
    arrays = [state, noise(2, CHANNELS), conditioner, *layer.weights]
    for position, shape in changed.items():
        arrays[position] = noise(*shape)

    with pytest.raises(Exception, match=f"gomin ResidualLayer: {message}"):
        layer.operator(*arrays)


def test_a_dilation_that_is_no_power_of_two_is_refused(library: Path) -> None:
    with pytest.raises(Exception, match="gomin ResidualLayer: dilation must be a power of 2"):
        Operator(library, "ResidualLayer", 8, dilation=3)
