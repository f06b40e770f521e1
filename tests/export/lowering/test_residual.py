"""The denoiser with one operator for each layer equals the denoiser."""

import copy

import pytest
import torch

from gomin_export.lowering import LoweredDenoiser
from gomin_export.lowering.residual import NativeDenoiser
from gomin_export.networks import DiffusionWrapper
from tests.export.lowering.helpers import close


@pytest.mark.parametrize(("layers", "channels", "cycle"), [(1, 8, 1), (5, 7, 2), (12, 12, 10)])
def test_the_denoiser_with_operators_equals_the_denoiser(layers: int, channels: int, cycle: int) -> None:
    torch.manual_seed(0)
    network = DiffusionWrapper(8, layers, channels, cycle).double().eval()
    inputs = (
        torch.randn(2, 1, 512, dtype=torch.float64),
        torch.tensor([0.0, 17.25], dtype=torch.float64),
        1.2 * torch.rand(2, 8, 2, dtype=torch.float64),
    )

    native = NativeDenoiser(LoweredDenoiser(copy.deepcopy(network.model)))

    close(native(*inputs), network.model(*inputs))


def test_layers_with_factors_beside_their_weights_are_refused() -> None:
    network = DiffusionWrapper(8, 2, 8, 2)

    with pytest.raises(ValueError, match="the factors of the layer are not in its weights"):
        NativeDenoiser(LoweredDenoiser(network.model, fold=False))
