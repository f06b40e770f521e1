"""Folding of constant factors into the weights of a linear layer."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Linear = TypeVar("Linear", nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d)


def scale_outputs(layer: Linear, factors: Tensor | float) -> Linear:
    """Multiply a layer's outputs by a factor, or one per channel, in its weights and bias; return the layer.

    Args:
        layer: changed in place.
        factors: (output channels,) or one number.
    """
    _scale(layer, factors, dim=1 if isinstance(layer, nn.ConvTranspose1d) else 0)
    if layer.bias is not None:
        layer.bias.data = (layer.bias.data.double() * factors).to(layer.bias.dtype)
    return layer


def scale_inputs(layer: Linear, factors: Tensor | float) -> Linear:
    """Multiply a layer's inputs by a factor, or one per channel, in its weights; return the layer.

    Args:
        layer: changed in place.
        factors: (input channels,) or one number.
    """
    _scale(layer, factors, dim=0 if isinstance(layer, nn.ConvTranspose1d) else 1)
    return layer


def _scale(layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d, factors: Tensor | float, dim: int) -> None:
    """Scale in float64, so that each weight is rounded once."""
    shape = [1] * layer.weight.ndim
    shape[dim] = -1
    column = torch.as_tensor(factors, dtype=torch.float64).reshape(shape)
    layer.weight.data = (layer.weight.data.double() * column).to(layer.weight.dtype)
