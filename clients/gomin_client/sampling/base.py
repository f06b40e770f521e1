"""The types that samplers share, and the loop that runs one chain."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# (signal (B, 1, N), timestep (B,) float32, mel (B, M, T)) -> predicted noise (B, 1, N)
Denoiser = Callable[[Array, Array, Array], Array]

# draw number -> standard normal noise (B, 1, N); draw 0 is the start of the chain, draw k belongs to its k-th step
NoiseSource = Callable[[int], Array]

# Yields the signal (B, 1, N) before each step and the timestep for the denoiser, is sent the noise that the denoiser
# predicts (B, 1, N), and returns the signal after the last step.
Chain = Generator[tuple[Array, float], Array, Array]


class Sampler(Protocol):
    """A way from noise to signal.

    A sampler requests predictions instead of calling the denoiser (see `Chain`). One caller can therefore run many
    chains, of different samplers, and merge their requests into common denoiser calls.
    """

    @property
    def timesteps(self) -> Sequence[float]:
        """The denoiser's timestep at each step; fractional ones are allowed."""
        ...

    @property
    def alphas_cumprod(self) -> Sequence[float]:
        """ᾱ at each step: the share of the signal's power in what the denoiser is given; see `predicted_signal`."""
        ...

    def chain(self, noise: NoiseSource) -> Chain:
        """A chain that begins with draw 0 of the noise."""
        ...


def sample(denoise: Denoiser, mel: Array, noise: NoiseSource, sampler: Sampler) -> Array:
    """Run one chain to its end, untiled.

    Args:
        denoise: see `Denoiser`.
        mel: (B, M, T) float32.
        noise: see `NoiseSource`; its N must be the denoiser's number of samples for T frames.
        sampler: for example DDPM(NoiseSchedule.linear(50)).

    Returns:
        (B, 1, N) float32 signal.
    """
    for signal in sample_steps(denoise, mel, noise, sampler):  # noqa: B007
        pass
    return signal


def sample_steps(denoise: Denoiser, mel: Array, noise: NoiseSource, sampler: Sampler) -> Iterator[Array]:
    """Yield the starting noise, then the signal after every step, each (B, 1, N); see `sample`."""
    chain = sampler.chain(noise)
    signal, timestep = next(chain)
    while True:
        yield signal
        predicted = denoise(signal, np.full(len(signal), timestep, dtype=np.float32), mel)
        try:
            signal, timestep = chain.send(predicted)
        except StopIteration as end:
            yield end.value
            return


def half_log_snr(alpha_bar: float) -> float:
    """λ, half the logarithm of the ratio of the signal's power to the noise's: the time of the multistep solvers."""
    return math.log(alpha_bar / (1 - alpha_bar)) / 2


def predicted_signal(x: Array, epsilon: Array, alpha_bar: float) -> Array:
    """The signal in x, (B, 1, N), if epsilon is the noise in it; clipped to [-1, 1].

    Computed in float64, since the rest of the signal may be magnified a thousand times (at the end of the cosine
    schedule).
    """
    signal = (x - math.sqrt(1 - alpha_bar) * epsilon.astype(np.float64)) / math.sqrt(alpha_bar)
    return np.asarray(np.clip(signal, -1, 1), dtype=np.float32)
