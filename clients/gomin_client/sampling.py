"""Diffusion sampling: noise schedules, the noise field, and samplers around an injected denoiser.

This file is the only implementation. `gomin-export` copies it, unchanged, beside the Triton model that runs the chain
on the server, so it imports numpy and the standard library alone and runs on Python 3.10.

Axes: B batch, M mel bands, T mel frames, N waveform samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# (signal (B, 1, N), timestep (B,) float32, mel (B, M, T)) -> predicted noise (B, 1, N)
Denoiser = Callable[[Array, Array, Array], Array]

# draw number -> standard normal noise (B, 1, N); draw 0 is the start of the chain, draw k belongs to its k-th step
NoiseSource = Callable[[int], Array]

LINEAR_BETA_START = 1e-4
LINEAR_BETA_END = 0.05
MIN_VARIANCE = np.float32(1e-20)

_WORDS_PER_BLOCK = 4  # Philox4x64 makes four 64-bit words from each value of its counter
_ONE = np.float32(1)


@dataclass(frozen=True)
class NoiseSchedule:
    """How much of the signal is left at each timestep of the forward process.

    Attributes:
        alphas_cumprod: (T,) float32 ᾱ_t, strictly decreasing within (0, 1).
    """

    alphas_cumprod: Array

    @classmethod
    def linear(
        cls, num_steps: int, beta_start: float = LINEAR_BETA_START, beta_end: float = LINEAR_BETA_END
    ) -> NoiseSchedule:
        """Betas in equal steps from beta_start to beta_end (Ho et al. 2020); the defaults are GOMIN's."""
        betas = np.linspace(beta_start, beta_end, num_steps, dtype=np.float32)
        # float32 factors, multiplied in float64: to the bit what torch.cumprod gave the program the models come from
        return cls(np.cumprod((_ONE - betas).astype(np.float64)).astype(np.float32))

    def __len__(self) -> int:
        return len(self.alphas_cumprod)


class NoiseField:
    """Standard normal noise as a function of (seed, draw, absolute sample index).

    Whatever window of a signal is sampled, in whatever batch and order, it sees the noise that the whole signal would.
    One sample takes one 64-bit word of a counter-based generator (Philox, Salmon et al. 2011), with the seed as its key
    and (sample, draw) as its counter; pairs of words become pairs of normals by the Box-Muller transform. numpy's own
    normals take a varying number of words and cannot be indexed.
    """

    def __init__(self, seeds: Sequence[int], length: int, first_samples: Sequence[int] | None = None) -> None:
        """Noise for a batch.

        Args:
            seeds: (B,) within 0 … 2**64 - 1.
            length: N, samples of each item.
            first_samples: (B,) absolute index of each item's first sample; all 0 by default.

        Raises:
            ValueError: a seed or an index out of range.
        """
        self.seeds = [int(seed) for seed in seeds]
        self.length = length
        self.first_samples = [0] * len(self.seeds) if first_samples is None else [int(first) for first in first_samples]
        if len(self.first_samples) != len(self.seeds):
            raise ValueError(f"{len(self.seeds)} seeds, but {len(self.first_samples)} first samples")
        for seed in self.seeds:
            if not 0 <= seed < 2**64:
                raise ValueError(f"seed {seed} out of range; expected 0 … 2**64 - 1")
        for first in self.first_samples:
            if not 0 <= first < 2**62:
                raise ValueError(f"first sample {first} out of range; expected 0 … 2**62 - 1")

    def __call__(self, draw: int) -> Array:
        """Noise of one draw, (B, 1, N) float32."""
        items = [
            _normals(seed, draw, first, self.length) for seed, first in zip(self.seeds, self.first_samples, strict=True)
        ]
        return np.stack(items)[:, np.newaxis, :]


class Sampler(Protocol):
    """A way from noise to signal with a given denoiser."""

    def steps(self, denoise: Denoiser, mel: Array, noise: NoiseSource) -> Iterator[Array]:
        """Yield the starting noise, then the signal after every step, each (B, 1, N)."""
        ...


@dataclass(frozen=True)
class DDPM:
    """GOMIN's released chain: ancestral sampling over all timesteps (Ho et al. 2020, algorithm 2).

    The predicted signal is clipped to [-1, 1]; the variance is the posterior's ("fixed small"). Coefficients are
    float32 and come from ᾱ, not from the betas, as in the program that the models were released with.
    """

    schedule: NoiseSchedule

    def steps(self, denoise: Denoiser, mel: Array, noise: NoiseSource) -> Iterator[Array]:
        """Yield the starting noise, then the signal after every step, each (B, 1, N) float32."""
        alphas_cumprod = self.schedule.alphas_cumprod
        x = noise(0)
        yield x
        for draw, t in enumerate(reversed(range(len(alphas_cumprod))), start=1):
            alpha_bar = alphas_cumprod[t]
            previous = alphas_cumprod[t - 1] if t > 0 else _ONE
            alpha = alpha_bar / previous
            beta = _ONE - alpha

            epsilon = denoise(x, np.full(len(x), t, dtype=np.float32), mel)
            x0 = np.clip((x - np.sqrt(_ONE - alpha_bar) * epsilon) / np.sqrt(alpha_bar), -_ONE, _ONE)
            x = (
                np.sqrt(previous) * beta / (_ONE - alpha_bar) * x0
                + np.sqrt(alpha) * (_ONE - previous) / (_ONE - alpha_bar) * x
            )
            if t > 0:
                variance = np.maximum((_ONE - previous) / (_ONE - alpha_bar) * beta, MIN_VARIANCE)
                x = x + np.sqrt(variance) * noise(draw)
            yield x


def sample(denoise: Denoiser, mel: Array, noise: NoiseSource, sampler: Sampler) -> Array:
    """Run a sampler to its end.

    Args:
        denoise: see `Denoiser`.
        mel: (B, M, T) float32.
        noise: see `NoiseSource`; its N must be the denoiser's samples for T frames.
        sampler: for example DDPM(NoiseSchedule.linear(50)).

    Returns:
        (B, 1, N) float32 signal.
    """
    signal = None
    for signal in sampler.steps(denoise, mel, noise):  # noqa: B007
        pass
    assert signal is not None  # a sampler yields at least the start
    return signal


def _normals(seed: int, draw: int, first: int, length: int) -> Array:
    """Samples first … first + length - 1 of one draw, (length,) float32."""
    block, skip = divmod(first, _WORDS_PER_BLOCK)
    count = -(-(skip + length) // _WORDS_PER_BLOCK) * _WORDS_PER_BLOCK
    words = np.random.Philox(key=seed, counter=block + (draw << 64)).random_raw(count)
    uniform = (words >> np.uint64(11)) * 2.0**-53  # [0, 1)
    radius = np.sqrt(-2 * np.log1p(-uniform[0::2]))
    angle = 2 * np.pi * uniform[1::2]
    normals: Array = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=-1).astype(np.float32)
    return normals.reshape(-1)[skip : skip + length]
