"""Number formats of exported models.

float16 is made in PyTorch, before the export: the convolutions that hold nearly all weights and multiplications are
converted by `nn.Module.half`, and the casts around them stand just where they are written here. Converters of finished
ONNX graphs round whatever passes between two nodes that were to stay in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gomin_export.errors import CheckpointError

# What is not below stays in float32: activations and their filters (the sine of a large float16 number is far off),
# sums over many layers, modulations, the timestep embedding, and the last layers, whose rounding would be heard in
# silence.
HEAVY_BLOCKS = ("resblocks", "ups", "residual_layers")


class InFloat16(nn.Module):
    """A layer that computes in float16 inside a float32 network."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer.half()

    def forward(self, x: Tensor) -> Tensor:
        """float32 in and out, shapes as the layer's."""
        return self.layer(x.half()).float()  # type: ignore[no-any-return]


def convolutions_to_float16(network: nn.Module) -> None:
    """Convert the convolutions of the heavy blocks, in place.

    Raises:
        CheckpointError: a weight is too large for float16.
    """
    for name in HEAVY_BLOCKS:
        if hasattr(network, name):
            _convert(network.get_submodule(name), name)


def _convert(module: nn.Module, path: str) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d)):
            wrapped = InFloat16(child)
            for parameter, tensor in child.named_parameters():
                if not torch.isfinite(tensor).all():
                    raise CheckpointError(f"{path}.{name}.{parameter} has values beyond float16's: export it as fp32")
            setattr(module, name, wrapped)
        else:
            _convert(child, f"{path}.{name}")
