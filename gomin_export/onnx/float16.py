"""float16 convolutions in a float32 network.

The conversion is done in PyTorch, before the export: `nn.Module.half` converts the convolutions, which have nearly all
weights and multiplications, and a cast is added before and after each. Converters of finished ONNX graphs also round
values between two nodes that should stay in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gomin_export.errors import CheckpointError

# All other blocks stay in float32: activations and their filters (the sine of a large float16 number has a large
# error), sums over many layers, modulations, the timestep embedding, and the last layers, whose rounding would be
# audible in silence.
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
