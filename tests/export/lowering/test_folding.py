"""Factors in the weights of a layer scale its inputs or outputs."""

import copy

import pytest
import torch

from gomin_export.lowering.folding import scale_inputs, scale_outputs
from tests.export.lowering.helpers import close


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
