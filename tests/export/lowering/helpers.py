"""Signals, blocks and networks for the tests of lowerings."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gomin_export.networks import GomiGAN
from gomin_export.networks.gan import ResBlock, Snake

TOLERANCE = 1e-12
CHANNELS = 6


def close(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(actual.numpy(), expected.numpy(), rtol=0, atol=tolerance)


def signal(length: int, channels: int = CHANNELS) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return 3 * torch.randn(2, channels, length, dtype=torch.float64, generator=generator)


def block(kernel: int, dilations: tuple[int, ...] = (1, 3, 5), channels: int = CHANNELS) -> ResBlock:
    """A block with positive, negative and zero α, and a low-pass filter that is not symmetric."""
    torch.manual_seed(kernel)
    made = ResBlock(channels, kernel, dilations, filter_rate=12000.0).double().eval()
    made.lpf *= torch.rand(12, dtype=torch.float64) + 0.5
    for module in made.modules():
        if isinstance(module, Snake):
            module.alpha.data = 2 * torch.randn(channels, 1, dtype=torch.float64)
            module.alpha.data[0] = 0
    return made


def wide_gan(channels: int = 384) -> GomiGAN:
    """A GAN whose stages have enough channels for phases to pay."""
    torch.manual_seed(0)
    return GomiGAN(8, channels, (4, 2), (3, 7), ((1, 3), (1,)), hop_length=8, win_length=32).eval()
