"""DDPM: ancestral sampling over all timesteps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import Chain, NoiseSource
from .schedules import NoiseSchedule

MIN_VARIANCE = np.float32(1e-20)

_ONE = np.float32(1)


class DDPM:
    """GOMIN's released chain: ancestral sampling over all timesteps (Ho et al. 2020, algorithm 2).

    The predicted signal is clipped to [-1, 1]; the variance is the posterior's ("fixed small"). Coefficients are
    float32 and are computed from ᾱ, not from the betas, as in the program that the models were released with.
    """

    def __init__(self, schedule: NoiseSchedule, timesteps: Sequence[float] | None = None) -> None:
        """A chain over all timesteps of a schedule.

        Args:
            schedule: the schedule of the chain.
            timesteps: the denoiser's own timestep for each one of the schedule, if they are not 0, 1, 2 …
        """
        self.schedule = schedule
        ascending = range(len(schedule)) if timesteps is None else timesteps
        self.timesteps: tuple[float, ...] = tuple(float(timestep) for timestep in reversed(ascending))
        self.alphas_cumprod: tuple[float, ...] = tuple(schedule.alphas_cumprod[::-1].tolist())

    def chain(self, noise: NoiseSource) -> Chain:
        """See `Sampler.chain`."""
        alphas_cumprod = self.schedule.alphas_cumprod
        x = noise(0)
        for draw, t in enumerate(reversed(range(len(alphas_cumprod))), start=1):
            alpha_bar = alphas_cumprod[t]
            previous = alphas_cumprod[t - 1] if t > 0 else _ONE
            alpha = alpha_bar / previous
            beta = _ONE - alpha

            epsilon = yield x, self.timesteps[draw - 1]
            x0 = np.clip((x - np.sqrt(_ONE - alpha_bar) * epsilon) / np.sqrt(alpha_bar), -_ONE, _ONE)
            x = (
                np.sqrt(previous) * beta / (_ONE - alpha_bar) * x0
                + np.sqrt(alpha) * (_ONE - previous) / (_ONE - alpha_bar) * x
            )
            if t > 0:
                variance = np.maximum((_ONE - previous) / (_ONE - alpha_bar) * beta, MIN_VARIANCE)
                x = x + np.sqrt(variance) * noise(draw)
        return x


def make(schedule: NoiseSchedule, steps: int | None = None) -> DDPM:
    """The chain over all timesteps.

    Raises:
        ValueError: another number of steps.
    """
    check_fixed_steps("ddpm", steps, len(schedule))
    return DDPM(schedule)


def check_fixed_steps(sampler: str, steps: int | None, taken: int) -> None:
    """Refuse a number of steps other than the only one that a sampler takes.

    Raises:
        ValueError: `steps` is another number.
    """
    if steps not in (None, taken):
        raise ValueError(f"steps {steps}: sampler {sampler} takes {taken}; take a sampler with any number of steps")
