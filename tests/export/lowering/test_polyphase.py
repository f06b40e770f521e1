"""Residual blocks on phases equal the blocks that they are made of."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gomin_export.lowering import polyphase
from gomin_export.lowering.polyphase import (
    ONNX_OPERATORS,
    OWN_OPERATORS,
    PHASES,
    PhasedResBlock,
    PhasedSnake,
    WinogradConv,
    from_phases,
    phases_pay,
    to_phases,
)
from tests.export.lowering.helpers import CHANNELS, block, close, signal

LENGTHS = [PHASES, 3 * PHASES, 25 * PHASES]  # one column; fewer columns than wide filters have; many


@pytest.mark.parametrize("length", LENGTHS)
def test_to_phases_and_back(length: int) -> None:
    assert torch.equal(from_phases(to_phases(signal(length))), signal(length))


@pytest.mark.parametrize(
    ("kernel", "dilation"),
    [
        *((1, 1), (3, 1), (3, 3)),  # one sub-filter
        *((5, 1), (7, 5), (9, 3)),  # two and three, of which the last is padded
        *((11, 1), (11, 3), (11, 5), (11, 7)),  # as released, and farther
    ],
)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_convolution_on_phases(length: int, kernel: int, dilation: int) -> None:
    torch.manual_seed(kernel)
    conv = nn.Conv1d(CHANNELS, 5, kernel, dilation=dilation, padding=dilation * (kernel // 2)).double()

    close(from_phases(WinogradConv(conv)(to_phases(signal(length)))), conv(signal(length)), 1e-11)


@pytest.mark.parametrize("length", LENGTHS)
def test_an_activation_on_phases(length: int) -> None:
    original = block(3)
    snake = original.snakes1[0]
    alpha = torch.where(snake.alpha == 0, 1e-15, snake.alpha)

    actual = from_phases(PhasedSnake(original.lpf[0, 0], alpha[:, 0])(to_phases(signal(length))))

    close(actual / alpha, original.anti_aliased(snake, signal(length)))


@pytest.mark.parametrize("kernel", [3, 7, 11])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_block_on_phases(length: int, kernel: int) -> None:
    original = block(kernel)

    close(from_phases(PhasedResBlock(original)(to_phases(signal(length)))), original(signal(length)), 1e-11)


def test_float32_loses_a_digit_at_most() -> None:
    """Outputs of unit variance, the most channels of the released network."""
    torch.manual_seed(0)
    conv = nn.Conv1d(768, 768, 11, padding=5)
    conv.weight.data = torch.randn(768, 768, 11) / (768 * 11) ** 0.5
    x = torch.randn(1, 768, 40)

    exact = copy.deepcopy(conv).double()(x.double())
    error = (from_phases(WinogradConv(conv)(to_phases(x))) - exact).abs().max()

    assert error < 1.5e-5
    assert error < 20 * (conv(x) - exact).abs().max()


class TestChoice:
    def test_long_kernels_of_many_channels(self) -> None:
        released = [
            (768, 3),
            (768, 7),
            (768, 11),
            (384, 3),
            (384, 7),
            (384, 11),
            (192, 7),
            (192, 11),
            (96, 7),
            (96, 11),
        ]
        chosen = [
            (channels, kernel)
            for channels in (768, 384, 192, 96, 48, 24)
            for kernel in (3, 7, 11)
            if phases_pay(block(kernel, channels=channels), 16)
        ]
        assert chosen == released

    def test_not_where_lengths_are_not_multiples(self) -> None:
        assert not phases_pay(block(11, channels=384), 6)

    def test_not_with_even_dilations(self) -> None:
        assert not phases_pay(block(11, (1, 2), channels=384), 16)

    def test_not_where_channels_have_filters_of_their_own(self) -> None:
        original = block(11, channels=384)
        original.lpf[3] *= 1.01

        assert not phases_pay(original, 16)

    def test_the_cost_is_that_of_the_layer_that_is_made(self) -> None:
        """Multiplications and gathered values are counted from the modules' own weights."""
        for kernel, dilation in ((3, 1), (7, 3), (11, 5)):
            conv = nn.Conv1d(8, 8, kernel, dilation=dilation)
            made = WinogradConv(conv)
            gathered = sum(rows.weight[0].numel() for rows in (made.analysis, made.synthesis))
            rows = sum(rows.weight.shape[0] for rows in (made.analysis, made.synthesis)) + 2 * made.points  # in blocks
            products = made.weight.numel() / 8
            costs = ONNX_OPERATORS
            cost = products + costs.gathered * gathered + costs.written * rows
            assert polyphase._cost(conv, costs) == pytest.approx(cost)

    def test_own_operators_have_filters_of_32_columns(self) -> None:
        """More are refused when the model runs; the largest dilation that is chosen needs no more."""
        assert phases_pay(block(11, (1, 19), channels=384), 16, OWN_OPERATORS)
        assert not phases_pay(block(11, (1, 21), channels=384), 16, OWN_OPERATORS)
        for kernel in (3, 5, 7, 11):
            made = WinogradConv(nn.Conv1d(1, 1, kernel, dilation=19))
            assert max(rows.weight.shape[-1] for rows in (made.analysis, made.synthesis)) <= 32

    def test_own_operators_pay_with_fewer_channels(self) -> None:
        """What was faster when single blocks were measured; channels are computed in blocks of 16."""
        chosen = [
            (channels, kernel)
            for channels in (192, 96, 48, 24)
            for kernel in (3, 7, 11)
            if phases_pay(block(kernel, channels=channels), 16, OWN_OPERATORS)
        ]
        assert chosen == [*((channels, kernel) for channels in (192, 96, 48) for kernel in (3, 7, 11)), (24, 11)]
