"""Activations, filters on phases and upsampling as operators of our own library for ONNX Runtime: `--target native`.

Each operator is defined here as a PyTorch operator, `torch.ops.gomin.…`, with an implementation that says what it
computes; `gomin_export.onnx.operators` names the node of domain gomin that it becomes, and `native/` at the top of the
repository computes it. A further operator is a function here, a module that calls it, a case of `_replacement`, and an
entry in the table of `gomin_export.onnx.operators`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gomin_export.lowering.activations import FoldedSnake, HalfFoldedSnake, PolyphaseSnake
from gomin_export.lowering.polyphase import (
    PhasedResBlock,
    PhasedSnake,
    RowFilter,
    WinogradConv,
    from_phases,
    to_phases,
)
from gomin_export.networks.gan import LPF_TAPS

MOST_PHASES = 64  # kMostPhases in native/kernels.h


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


@torch.library.custom_op("gomin::row_filter", mutates_args=())
def row_filter(x: Tensor, weight: Tensor, summand: Tensor, left: int, right: int) -> Tensor:
    """`RowFilter`, plus a summand.

    Args:
        x: (B, R, 1, C, J).
        weight: (R', R, K).
        summand: the shape of the result.
        left: columns of zeros to add before x; columns to remove if it is negative.
        right: the same after x.

    Returns:
        (B, R', 1, C, J + left + right - K + 1).
    """
    return _filtered(x, weight, left, right) + summand


@torch.library.custom_op("gomin::snake_filter", mutates_args=())
def snake_filter(x: Tensor, up: Tensor, down: Tensor, weight: Tensor, left: int, right: int) -> Tensor:
    """`PhasedSnake` with the factors of the Snake in its filters, then `RowFilter`.

    Args:
        x: (B, PHASES, 1, C, J).
        up: as in `anti_aliased_snake`.
        down: as in `anti_aliased_snake`.
        weight: (R, PHASES, K).
        left: as in `row_filter`.
        right: as in `row_filter`.

    Returns:
        (B, R, 1, C, J + left + right - K + 1).
    """
    return _filtered(to_phases(anti_aliased_snake(from_phases(x), up, down)), weight, left, right)


@torch.library.custom_op("gomin::row_filter_pair", mutates_args=())
def row_filter_pair(x: Tensor, first: Tensor, weight: Tensor, paddings: Sequence[int]) -> Tensor:
    """`RowFilter`, v + sin²v, and `RowFilter`.

    Args:
        x: (B, R, 1, C, J).
        first: (R', R, K).
        weight: (R″, R', K').
        paddings: left and right of the first filter, and of the second; see `row_filter`.

    Returns:
        (B, R″, 1, C, J'), J' as each filter changes the number of columns.
    """
    return _filtered(snake(_filtered(x, first, *paddings[:2])), weight, *paddings[2:])


@torch.library.custom_op("gomin::interleave", mutates_args=())
def interleave(x: Tensor, modulation: Tensor | None, phases: int, trim: int) -> Tensor:
    """Phases put in order, and FiLM.

    Args:
        x: (B, phases·C, J), rows p·C + c for phase p of channel c.
        modulation: (B, 2·C, N), the scales, around 0, and the shifts.
        phases: samples of a column.
        trim: samples to remove at either end.

    Returns:
        (B, C, N), N = phases·J - 2·trim: times 1 + scale, plus the shift.
    """
    y = torch.unflatten(x, 1, (phases, -1)).permute(0, 2, 3, 1).flatten(2)
    y = y[..., trim : y.shape[-1] - trim]
    if modulation is None:
        return y.clone()
    scale, shift = modulation.chunk(2, dim=1)
    return (1 + scale) * y + shift


def _filtered(x: Tensor, weight: Tensor, left: int, right: int) -> Tensor:
    return F.conv3d(F.pad(x, (left, right)), weight[:, :, None, None])


for _operator in (snake, anti_aliased_snake):
    _operator.register_fake(lambda x, *_: torch.empty_like(x))


def _row_filter_shape(x: Tensor, weight: Tensor, left: int, right: int) -> Tensor:
    columns = x.shape[-1] + left + right - weight.shape[-1] + 1
    return x.new_empty((x.shape[0], weight.shape[0], 1, x.shape[3], columns))


row_filter.register_fake(lambda x, weight, _, left, right: _row_filter_shape(x, weight, left, right))
snake_filter.register_fake(lambda x, *given: _row_filter_shape(x, *given[2:]))


@interleave.register_fake
def _(x: Tensor, _: Tensor | None, phases: int, trim: int) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1] // phases, phases * x.shape[2] - 2 * trim))


@row_filter_pair.register_fake
def _(x: Tensor, first: Tensor, weight: Tensor, paddings: Sequence[int]) -> Tensor:
    return _row_filter_shape(_row_filter_shape(x, first, *paddings[:2]), weight, *paddings[2:])


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


class NativePhasedLayer(nn.Module):
    """An anti-aliased Snake, a convolution, a Snake, a convolution and the sum, on phases.

    What comes between the products of the two convolutions is one pass over the signal each.
    """

    up: Tensor
    down: Tensor

    def __init__(self, snake: PhasedSnake, conv1: WinogradConv, conv2: WinogradConv) -> None:
        super().__init__()
        up = snake.gain.double() * snake.lpf.double()
        self.register_buffer("up", up.to(snake.lpf.dtype))  # (C, 12)
        self.register_buffer("down", snake.lpf.expand(self.up.shape).clone())
        self.conv1, self.conv2 = conv1, conv2

    def forward(self, x: Tensor) -> Tensor:
        """(B, PHASES, 1, C, J) -> (B, PHASES, 1, C, J)."""
        analysis1, synthesis1 = self.conv1.analysis, self.conv1.synthesis
        analysis2, synthesis2 = self.conv2.analysis, self.conv2.synthesis
        paddings = [*synthesis1.padding, *analysis2.padding]
        points = self.conv1.products(snake_filter(x, self.up, self.down, _rows(analysis1), *analysis1.padding))
        points = self.conv2.products(row_filter_pair(points, _rows(synthesis1), _rows(analysis2), paddings))
        return row_filter(points, _rows(synthesis2), x, *synthesis2.padding)  # type: ignore[no-any-return]


def _rows(rows: RowFilter) -> Tensor:
    return rows.weight[:, :, 0, 0]


class NativePhasedResBlock(nn.Module):
    """`PhasedResBlock` in three operators and two products for each pair of convolutions."""

    def __init__(self, block: PhasedResBlock) -> None:
        super().__init__()
        parts: Any = zip(block.snakes1, block.convs1, block.convs2, strict=True)  # Any: ModuleList has no element type
        self.layers = nn.ModuleList([NativePhasedLayer(*layer) for layer in parts])

    def forward(self, x: Tensor) -> Tensor:
        """(B, PHASES, 1, C, J) -> (B, PHASES, 1, C, J)."""
        for layer in self.layers:
            x = layer(x)
        return x


class NativeUpsampling(nn.Module):
    """A transposed convolution, whose kernel is twice its stride, then FiLM.

    Every sample is a sum over two neighbouring inputs. Those between two inputs, from half a stride after the first to
    half a stride after the second, are the columns of one convolution of two taps, as `WinogradConv` over an image of
    height 1. ONNX Runtime would add the products of a ConvTranspose to the samples on one thread.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.ConvTranspose1d) -> None:
        super().__init__()
        (kernel,), (stride,) = conv.kernel_size, conv.stride
        if kernel != 2 * stride or conv.padding != (stride // 2,) or stride % 2:
            raise ValueError(f"kernel {kernel}, stride {stride}, padding {conv.padding}: expected 2s, s, s/2; s even")
        self.stride = stride
        # tap p of the later input and tap s + p of the earlier one make sample p of a column
        later, earlier = torch.tensor_split(conv.weight.detach(), 2, dim=2)  # (C, C', s) each
        weight = torch.stack((earlier, later), dim=-1).permute(2, 1, 0, 3)  # (s, C', C, 2)
        self.register_buffer("weight", weight.flatten(0, 1).unsqueeze(2).contiguous())
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().repeat(stride))

    def forward(self, x: Tensor, modulation: Tensor | None = None) -> Tensor:
        """(B, C, T), and for FiLM (B, 2·C', s·T) -> (B, C', s·T)."""
        columns = F.conv2d(x.unsqueeze(2), self.weight, self.bias, padding=(0, 1)).squeeze(2)  # (B, s·C', T + 1)
        return interleave(columns, modulation, self.stride, self.stride // 2)  # type: ignore[no-any-return]


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
    if isinstance(module, PhasedResBlock):
        return NativePhasedResBlock(module)
    if isinstance(module, PolyphaseSnake):
        return NativeAntiAliasedSnake(module)
    if isinstance(module, FoldedSnake):
        return NativeSnake()
    if isinstance(module, HalfFoldedSnake):
        return NativeSnake(module.gain[:, 0])
    if isinstance(module, nn.ConvTranspose1d) and module.stride[0] <= MOST_PHASES:
        return NativeUpsampling(module)
    return None
