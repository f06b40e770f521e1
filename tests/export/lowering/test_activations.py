"""Snakes in fewer passes equal the Snakes of the network, for all lengths, edges and α."""

import numpy as np
import pytest
import torch
from torch import Tensor

from gomin_export.lowering.activations import FoldedSnake, HalfFoldedSnake, PolyphaseSnake, UnfoldedSnake, frequencies
from gomin_export.networks.gan import ResBlock, Snake
from tests.export.lowering.helpers import close

# one channel each
ALPHAS = torch.tensor([1e-4, -1e-4, 1e-3, -0.01, 0.1, -0.5, 1.0, -2.0, 10.0, -10.0, 0.0], dtype=torch.float64)
# shorter than half a filter, than a filter, as long as one, odd and even, long
LENGTHS = [1, 2, 3, 5, 6, 7, 12, 13, 64, 101]


def snake() -> Snake:
    module = Snake(len(ALPHAS)).double()
    module.alpha.data = ALPHAS[:, None].clone()
    return module


def signal(length: int) -> Tensor:
    return 3 * torch.randn(2, len(ALPHAS), length, dtype=torch.float64, generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("length", LENGTHS)
def test_polyphase_snake_is_the_anti_aliased_snake(length: int, fold: bool) -> None:
    block = ResBlock(len(ALPHAS), 3, [1], filter_rate=12000.0).double()
    block.lpf *= torch.rand(len(ALPHAS), 1, 12, dtype=torch.float64) + 0.5  # no symmetry to lean on
    x = signal(length)

    close(PolyphaseSnake(block.lpf, snake(), fold)(x), block.anti_aliased(snake(), x))


def test_folded_snakes_are_snakes_between_scaled_layers() -> None:
    x = signal(50)
    alpha = frequencies(snake())[:, None]

    close(FoldedSnake()(alpha * x) / alpha, snake()(x))
    close(HalfFoldedSnake(alpha[:, 0], torch.float64)(x) / alpha, snake()(x))
    close(UnfoldedSnake(snake())(x), snake()(x))


def test_unfolded_snake_is_as_accurate_as_float32_allows() -> None:
    """(1 - cos 2αx)/(2α), the equal form, is 4e-5 off for α = 0.001."""
    x = signal(2000)

    actual = UnfoldedSnake(snake().float())(x.float()).double()

    np.testing.assert_allclose(actual.numpy(), snake()(x).numpy(), rtol=0, atol=2e-6)
