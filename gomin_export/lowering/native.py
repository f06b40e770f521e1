"""Activations as single operators of our own library, for ONNX Runtime on CPUs: `--target native`.

Each operator is defined here as a PyTorch operator, `torch.ops.gomin.…`, with an implementation that says what it
computes; `gomin_export.onnx.operators` names the node of domain gomin that it becomes, and `native/` at the top of the
repository computes it. A further operator is a function here, a module that calls it, a case of `_replacement`, and an
entry in the table of `gomin_export.onnx.operators`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gomin_export.lowering.activations import FoldedSnake, HalfFoldedSnake, PolyphaseSnake
from gomin_export.networks.gan import LPF_TAPS


@torch.library.custom_op("gomin::snake", mutates_args=())
def snake(u: Tensor, gain: Tensor | None = None) -> Tensor:
    """v + sin²v with v = u of any shape, or v = gain·u with u (B, C, T) and gain (C,)."""
    v = u.clone() if gain is None else gain[:, None] * u
    sine = torch.sin(v)
    return v + sine * sine


@torch.library.custom_op("gomin::anti_aliased_snake", mutates_args=())
def anti_aliased_snake(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """`PolyphaseSnake` with the factors of the Snake in its filters.

    Args:
        x: (B, C, T).
        up: (C, 12) taps of the filter after the zero-stuffing.
        down: (C, 12) taps of the filter before every second sample is kept.

    Returns:
        (B, C, T).
    """
    channels, samples = x.shape[1:]
    stuffed = torch.stack((x, torch.zeros_like(x)), dim=-1).flatten(-2)
    u = F.conv1d(stuffed, up[:, None], padding=LPF_TAPS // 2, groups=channels)  # (B, C, 2T + 1)
    sine = torch.sin(u)
    y = F.conv1d(u + sine * sine, down[:, None], padding=LPF_TAPS // 2, groups=channels)  # (B, C, 2T + 2)
    return y[..., 1 : 2 * samples : 2].clone()


@torch.library.custom_op("gomin::gated_tanh", mutates_args=())
def gated_tanh(gate: Tensor, filtered: Tensor) -> Tensor:
    """sigmoid(gate)·tanh(filtered), of equal shapes."""
    return torch.sigmoid(gate) * torch.tanh(filtered)


for _operator in (snake, anti_aliased_snake, gated_tanh):
    _operator.register_fake(lambda x, *_: torch.empty_like(x))


class NativeSnake(nn.Module):
    """`FoldedSnake`, or `HalfFoldedSnake` with its gain."""

    gain: Tensor | None

    def __init__(self, gain: Tensor | None = None) -> None:
        """Args: gain: (C,)."""
        super().__init__()
        self.register_buffer("gain", gain)

    def forward(self, u: Tensor) -> Tensor:
        """Any shape, or (B, C, T) with a gain -> the same shape."""
        return snake(u, self.gain)  # type: ignore[no-any-return]


class NativeAntiAliasedSnake(nn.Module):
    """`PolyphaseSnake` whose factors are in its filters."""

    up: Tensor
    down: Tensor

    def __init__(self, polyphase: PolyphaseSnake) -> None:
        super().__init__()
        if not isinstance(polyphase.snake, FoldedSnake):
            raise ValueError("the factors of the Snake are not in the filters")
        up_odd, down_odd = polyphase.up_odd[..., 1:], polyphase.down_odd[..., :-1]  # without the seventh tap of zero
        self.register_buffer("up", torch.stack((polyphase.up_even, up_odd), dim=-1).flatten(-2)[:, 0])
        self.register_buffer("down", torch.stack((down_odd, polyphase.down_even), dim=-1).flatten(-2)[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)."""
        return anti_aliased_snake(x, self.up, self.down)  # type: ignore[no-any-return]


def with_operators(module: nn.Module) -> nn.Module:
    """Replace what our operators compute, in place; returns the module."""
    for name, child in module.named_children():
        replacement = _replacement(child)
        if replacement is None:
            with_operators(child)
        else:
            setattr(module, name, replacement)
    return module


def _replacement(module: nn.Module) -> nn.Module | None:
    """What takes the place of a module; None: it stays."""
    if isinstance(module, PolyphaseSnake):
        return NativeAntiAliasedSnake(module)
    if isinstance(module, FoldedSnake):
        return NativeSnake()
    if isinstance(module, HalfFoldedSnake):
        return NativeSnake(module.gain[:, 0])
    return None
