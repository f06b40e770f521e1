"""Snake activations, plain and anti-aliased, with fewer passes over the data.

A Snake x + sin²(αx)/α between linear layers needs neither factor: the layer before makes u = αx, the layer after takes
1/α, and u + sin²u remains, which is three element-wise passes instead of five. The equal form with cos(2αx) needs as
many passes, but suffers from cancellation in float32 if α is small.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gomin_export.networks.gan import LPF_TAPS, Snake

# Below this |α|, sin²(αx)/α is less than 1e-15·x², which is lost when x is added. It is still a safe factor of weights.
SMALLEST_ALPHA = 1e-15


def frequencies(snake: Snake) -> Tensor:
    """α of a Snake as a divisor, (C,) float64: α = 0 becomes a value for which the Snake is the identity."""
    alpha = snake.alpha.detach().double()[:, 0]
    return torch.where(alpha.abs() < SMALLEST_ALPHA, SMALLEST_ALPHA, alpha)


class FoldedSnake(nn.Module):
    """u + sin²u: a Snake whose factors are in the layers before and after."""

    def forward(self, u: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T), both scaled by α."""
        sine = torch.sin(u)
        return u + sine * sine


class HalfFoldedSnake(nn.Module):
    """u + sin²u with u = gain·x: a Snake whose factor 1/α is in the layer after."""

    gain: Tensor

    def __init__(self, gain: Tensor, dtype: torch.dtype) -> None:
        """Args: gain: (C,) factor of the input."""
        super().__init__()
        self.register_buffer("gain", gain[:, None].to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T), the result scaled by α."""
        u = self.gain * x
        sine = torch.sin(u)
        return u + sine * sine


class UnfoldedSnake(nn.Module):
    """x + sin²(αx)·(1/α) with 1/α as a constant, for number formats that cannot hold scaled weights."""

    alpha: Tensor
    inverse: Tensor

    def __init__(self, snake: Snake) -> None:
        super().__init__()
        alpha = frequencies(snake)[:, None]
        self.register_buffer("alpha", alpha.to(snake.alpha.dtype))
        self.register_buffer("inverse", (1 / alpha).to(snake.alpha.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)."""
        sine = torch.sin(self.alpha * x)
        return x + sine * sine * self.inverse


class PolyphaseSnake(nn.Module):
    """Snake at twice the rate between two low-pass filters, without computing samples that are zero or discarded.

    Every second sample of the zero-stuffed signal is zero. After the first filter, its even samples are x filtered with
    one half of the taps, its odd samples x filtered with the other half (Crochiere & Rabiner 1983, section 3.3). Every
    second sample of the second filter's output is kept, which is a sum of two filters, one over each half.

    With x(i) = 0 outside 0 … T-1 and h the 12 taps, padding 6:
        even(j) = Σ_q h(2q)·x(j + q - 3)      j = 0 … T        the first filter makes 2T + 1 samples
        odd(j)  = Σ_q h(2q+1)·x(j + q - 2)    j = 0 … T-1
        y(i)    = Σ_q h(2q+1)·even(i + q - 2) + Σ_q h(2q)·odd(i + q - 3)
    The two sums over odd indices reach one sample further on one side: a seventh tap of zero makes their padding
    symmetric, which a convolution does without a copy.
    """

    up_even: Tensor
    up_odd: Tensor
    down_even: Tensor
    down_odd: Tensor

    def __init__(self, lpf: Tensor, snake: Snake, fold: bool) -> None:
        """Args: lpf: (C, 1, 12) taps; fold: put α and 1/α into the filters."""
        super().__init__()
        if lpf.shape[-1] != LPF_TAPS:
            raise ValueError(f"lpf has {lpf.shape[-1]} taps; expected {LPF_TAPS}")
        alpha = frequencies(snake)[:, None, None] if fold else torch.ones((), dtype=torch.float64)
        up, down = lpf.double() * alpha, lpf.double() / alpha
        self.register_buffer("up_even", up[..., 0::2].to(lpf.dtype))
        self.register_buffer("up_odd", F.pad(up[..., 1::2], (1, 0)).to(lpf.dtype))
        self.register_buffer("down_even", down[..., 1::2].to(lpf.dtype))
        self.register_buffer("down_odd", F.pad(down[..., 0::2], (0, 1)).to(lpf.dtype))
        self.snake = FoldedSnake() if fold else UnfoldedSnake(snake)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)."""
        channels = x.shape[1]
        even = self.snake(F.conv1d(x, self.up_even, padding=3, groups=channels))  # (B, C, T + 1)
        odd = self.snake(F.conv1d(x, self.up_odd, padding=3, groups=channels))  # (B, C, T)
        return F.conv1d(even, self.down_even, padding=2, groups=channels) + F.conv1d(
            odd, self.down_odd, padding=3, groups=channels
        )
