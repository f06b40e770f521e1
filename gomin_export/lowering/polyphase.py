"""Residual blocks on polyphase signals, whose Winograd convolutions need half of the multiplications.

The signals of a stage are stored as `PHASES` interleaved ones, (B, rows, 1, C, T / PHASES); row p of column j is sample
PHASES·j + p. A filter over time that is the same for all channels becomes a small matrix over rows and neighbouring
columns and runs as one matrix product: the anti-aliasing filters, and the analysis and synthesis of Winograd's minimal
filtering (`winograd.py`). A layer that mixes channels becomes an ordinary grouped convolution over columns. Nothing is
transposed. The axis of size 1 is needed because ONNX Runtime pads the channels of four-dimensional convolutions to its
vector length, and there are few rows.

The K taps of a layer are s = ⌈K/r⌉ sub-filters of r taps. If r = PHASES, sub-filter σ needs the inputs of the tile at
offset σ, so that in the Winograd domain a layer is a convolution of s taps over columns. With a dilation of d a tile is
PHASES·j + i·d, i = 0 … PHASES-1: for odd d it has one sample of each row, and the tiles cover each sample once.

This requires stages whose length is a multiple of PHASES for every mel, odd dilations, and low-pass filters that are
the same for all channels; `phases_pay` tests these conditions and the expected gain.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gomin_export.lowering.activations import FoldedSnake, frequencies
from gomin_export.lowering.folding import scale_inputs, scale_outputs
from gomin_export.lowering.winograd import UNIT, WinogradFilter
from gomin_export.networks.gan import LPF_TAPS, ResBlock

PHASES = 4

# one coefficient of a filter over rows: output row, input row, column of the input relative to the output's, value
Entry = tuple[int, int, int, float]


def to_phases(x: Tensor) -> Tensor:
    """(B, C, T) -> (B, PHASES, 1, C, T / PHASES)."""
    return torch.unflatten(x, 2, (-1, PHASES)).permute(0, 3, 1, 2).unsqueeze(2)


def from_phases(x: Tensor) -> Tensor:
    """(B, PHASES, 1, C, J) -> (B, C, PHASES·J)."""
    return x.squeeze(2).permute(0, 2, 3, 1).flatten(2)


class RowFilter(nn.Module):
    """A linear filter over rows and neighbouring columns, the same for all channels."""

    weight: Tensor

    def __init__(self, entries: Iterable[Entry], dtype: torch.dtype, before: int = 0, after: int = 0) -> None:
        """Args: before, after: columns to add to the output on either side; the input is 0 beyond its ends."""
        super().__init__()
        entries = list(entries)
        rows_out, rows_in = 1 + max(entry[0] for entry in entries), 1 + max(entry[1] for entry in entries)
        columns = [entry[2] for entry in entries]
        first, last = min(columns), max(columns)
        weight = torch.zeros(rows_out, rows_in, 1, 1, last - first + 1, dtype=torch.float64)
        for row, source, column, value in entries:
            weight[row, source, 0, 0, column - first] += value
        self.padding = (before - first, after + last)
        self.register_buffer("weight", weight.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(B, rows in, 1, C, J) -> (B, rows out, 1, C, before + J + after)."""
        return F.conv3d(F.pad(x, self.padding), self.weight)


def _place(sample: int) -> tuple[int, int]:
    """Row and column of a sample."""
    return sample % PHASES, sample // PHASES


class PhasedSnake(nn.Module):
    """`PolyphaseSnake` on phases; its result is scaled by α.

    The zero-stuffed signal has one sample more than twice the input after the first filter. Its even samples therefore
    have an additional row, which at column j holds row 0 of column j + 1. The second filter reads this row instead: at
    the last column it holds the additional sample, for which row 0 has no column.
    """

    gain: Tensor
    lpf: Tensor

    def __init__(self, lpf: Tensor, gain: Tensor) -> None:
        """Args: lpf: (12,) taps; gain: (C,) α."""
        super().__init__()
        self.register_buffer("lpf", lpf)
        taps = lpf.double().tolist()
        half, even_rows = LPF_TAPS // 2, PHASES + 1
        up: list[Entry] = []
        down: list[Entry] = []
        for q in range(half):
            for row in range(even_rows):
                up.append((row, *_place(row + q - 3), taps[2 * q]))
            for row in range(PHASES):
                up.append((even_rows + row, *_place(row + q - 2), taps[2 * q + 1]))
                even, odd = row + q - 2, row + q - 3
                source = (PHASES, 0) if even == PHASES else _place(even)
                down.append((row, *source, taps[2 * q + 1]))
                place, column = _place(odd)
                down.append((row, even_rows + place, column, taps[2 * q]))
        self.register_buffer("gain", gain[:, None].to(lpf.dtype))
        self.up = RowFilter(up, lpf.dtype)
        self.snake = FoldedSnake()
        self.down = RowFilter(down, lpf.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, PHASES, 1, C, J) -> (B, PHASES, 1, C, J)."""
        return self.down(self.snake(self.up(self.gain * x)))  # type: ignore[no-any-return]


class WinogradConv(nn.Module):
    """A `Conv1d` of stride 1 and the same length as Winograd convolution on phases."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        (kernel,), (dilation,) = conv.kernel_size, conv.dilation
        taps, sub_filters = split(kernel)
        winograd = WinogradFilter.of(PHASES, taps)
        points = len(winograd.taps)
        dtype = conv.weight.dtype
        self.points, self.channels, self.dilation = points, conv.out_channels, dilation
        reach = (sub_filters - 1) * dilation  # columns that the products need beyond the last
        delay = (PHASES - 1) * dilation // PHASES  # columns between a tile's first output and its last
        self.analysis = RowFilter(
            (
                (point, *_place((i - kernel // 2) * dilation), float(winograd.analysis[point, i]))
                for point in range(points)
                for i in range(points)
            ),
            dtype,
            before=delay,
            after=reach,
        )
        # trimmed at the front: columns in which a tile has no sample of the signal are not computed
        synthesis: list[Entry] = []
        for i in range(PHASES):
            row, column = _place(i * dilation)
            synthesis += [(row, point, -column, float(winograd.synthesis[i, point])) for point in range(points)]
        self.synthesis = RowFilter(synthesis, dtype, before=-delay, after=0)
        weight = F.pad(conv.weight.double(), (0, taps * sub_filters - kernel))
        products = torch.einsum("pr,oisr->pois", winograd.taps, torch.unflatten(weight, 2, (sub_filters, taps)))
        bias = torch.zeros(points, conv.out_channels, dtype=torch.float64)
        if conv.bias is not None:
            bias[UNIT] = conv.bias.double()  # the point 1 contributes to every output with factor 1
        self.register_buffer("weight", products.flatten(0, 1).unsqueeze(2).to(dtype))
        self.register_buffer("bias", bias.flatten().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(B, PHASES, 1, C, J) -> (B, PHASES, 1, C', J)."""
        return self.synthesis(self.products(self.analysis(x)))  # type: ignore[no-any-return]

    def products(self, points: Tensor) -> Tensor:
        """The products at each point, summed over channels and sub-filters: (B, n, 1, C, J) -> (B, n, 1, C', J')."""
        # an image of one line, (B, points·C, 1, J): see `image_conv`
        points = points.flatten(1, 2).flatten(1, 2).unsqueeze(2)
        points = F.conv2d(points, self.weight, self.bias, dilation=(1, self.dilation), groups=self.points)
        return torch.unflatten(points.squeeze(2), 1, (self.points, 1, self.channels))


def split(kernel: int) -> tuple[int, int]:
    """Taps of a sub-filter, and the number of sub-filters of a kernel."""
    return (kernel, 1) if kernel <= PHASES else (PHASES, math.ceil(kernel / PHASES))


class PhasedResBlock(nn.Module):
    """`ResBlock` on phases, with all factors of its Snakes folded into weights."""

    def __init__(self, block: ResBlock) -> None:
        super().__init__()
        layers: list[Any] = [block.snakes1, block.convs1, block.snakes2, block.convs2]
        self.snakes1, self.convs1 = nn.ModuleList(), nn.ModuleList()
        self.snakes2, self.convs2 = nn.ModuleList(), nn.ModuleList()
        for snake1, conv1, snake2, conv2 in zip(*layers, strict=True):
            first, second = frequencies(snake1), frequencies(snake2)
            self.snakes1.append(PhasedSnake(block.lpf[0, 0], first))
            self.convs1.append(WinogradConv(scale_outputs(scale_inputs(_widened(conv1), 1 / first), second)))
            self.snakes2.append(FoldedSnake())
            self.convs2.append(WinogradConv(scale_inputs(_widened(conv2), 1 / second)))
        self.to(block.lpf.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, PHASES, 1, C, J) -> (B, PHASES, 1, C, J)."""
        for snake1, conv1, snake2, conv2 in zip(self.snakes1, self.convs1, self.snakes2, self.convs2, strict=True):
            x = x + conv2(snake2(conv1(snake1(x))))
        return x


def _widened(conv: nn.Conv1d) -> nn.Conv1d:
    """A copy in float64, so that weights are rounded once."""
    return copy.deepcopy(conv).double()


@dataclass(frozen=True)
class PhaseCosts:
    """Costs in multiply-adds of a matrix product, per column of one channel.

    Measured with ONNX Runtime on AVX-512: ONNX's operators with two threads (0.01 ns per multiply-add), our own with
    one. Machines without AVX-512 multiply more slowly, and gain more than is expected here.

    Attributes:
        gathered: a value copied to make a filter over rows a matrix product.
        written: a row of its result; and a row converted to or from blocks of channels.
        activated: for each pair of convolutions: what an anti-aliased Snake on phases costs more than one that is not.
        convolved: for each convolution: the difference of all other steps.
        block: channels are padded to a multiple of this.
        dilation: largest dilation of a convolution on phases.
    """

    gathered: int
    written: int
    activated: int
    convolved: int = 0
    block: int = 1
    dilation: float = math.inf


ONNX_OPERATORS = PhaseCosts(gathered=26, written=12, activated=300)
# the dilation: an operator's filter spans at most 32 columns, kMaxReach in native/kernels.h
OWN_OPERATORS = PhaseCosts(gathered=0, written=0, activated=0, convolved=230, block=16, dilation=20)
_WORTH = 0.95  # the weights double, which must pay


def phases_pay(block: ResBlock, samples_per_frame: int, costs: PhaseCosts = ONNX_OPERATORS) -> bool:
    """Whether a block can be computed on phases, and is expected to take clearly less time.

    Args:
        block: the block.
        samples_per_frame: samples per mel frame at the rate of its stage.
        costs: what the filters of a block on phases cost.
    """
    convs: Any = [*block.convs1, *block.convs2]
    same_filter = bool((block.lpf == block.lpf[:1]).all())
    dilations = [conv.dilation[0] for conv in convs]
    if any(dilation % 2 == 0 or dilation > costs.dilation for dilation in dilations):
        return False
    if samples_per_frame % PHASES or not same_filter:
        return False
    direct = sum(PHASES * conv.in_channels * conv.kernel_size[0] for conv in convs)
    phased = sum(_cost(conv, costs) for conv in convs) + costs.activated * len(block.convs1)
    return bool(phased < _WORTH * direct)


def _cost(conv: nn.Conv1d, costs: PhaseCosts) -> float:
    """The cost of a `WinogradConv`: analysis, products on blocks of channels, synthesis."""
    (kernel,), (dilation,) = conv.kernel_size, conv.dilation
    taps, sub_filters = split(kernel)
    points = PHASES + taps - 1
    first, last = ((i - kernel // 2) * dilation // PHASES for i in (0, points - 1))
    gathered = PHASES * (last - first + 1) + points * ((PHASES - 1) * dilation // PHASES + 1)
    products = math.ceil(conv.in_channels / costs.block) * costs.block * points * sub_filters
    return products + costs.gathered * gathered + costs.written * (3 * points + PHASES) + costs.convolved
