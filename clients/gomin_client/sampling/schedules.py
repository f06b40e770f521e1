"""Noise schedules: how much of the signal is left at each timestep of the forward process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Array
from .registry import SCHEDULES, one_of

LINEAR_BETA_START = 1e-4
LINEAR_BETA_END = 0.05
COSINE_OFFSET = 0.008
MAX_BETA = 0.999


@dataclass(frozen=True)
class NoiseSchedule:
    """A noise schedule. The constructors `linear`, `cosine` and `interpolated` are also available by their names.

    Attributes:
        alphas_cumprod: (T,) float32 ᾱ_t, decreasing within (0, 1); T timesteps.
    """

    alphas_cumprod: Array

    @classmethod
    def from_betas(cls, betas: Sequence[float] | NDArray[np.floating[Any]]) -> NoiseSchedule:
        """The schedule of given betas, β_t = 1 - ᾱ_t/ᾱ_{t-1}; they are rounded to float32.

        Raises:
            ValueError: no betas, or one that is not within (0, 1).
        """
        rounded = np.asarray(betas, dtype=np.float32)
        if rounded.ndim != 1 or not len(rounded):
            raise ValueError(f"betas of shape {rounded.shape}: expected one or more, in one dimension")
        wrong = np.flatnonzero(~((rounded > 0) & (rounded < 1)))
        if len(wrong):
            raise ValueError(f"betas[{wrong[0]}] is {rounded[wrong[0]]:g}: expected a number between 0 and 1")
        # float32 factors, multiplied in float64: to the bit what torch.cumprod gave the program the models come from
        return cls(np.cumprod((np.float32(1) - rounded).astype(np.float64)).astype(np.float32))

    @classmethod
    def linear(
        cls, num_steps: int, beta_start: float = LINEAR_BETA_START, beta_end: float = LINEAR_BETA_END
    ) -> NoiseSchedule:
        """Betas in equal steps from beta_start to beta_end (Ho et al. 2020); the defaults are GOMIN's."""
        return cls.from_betas(np.linspace(beta_start, beta_end, num_steps, dtype=np.float32))

    @classmethod
    def cosine(cls, num_steps: int) -> NoiseSchedule:
        """ᾱ falls as a squared cosine, betas are capped at 0.999 (Nichol & Dhariwal 2021, section 3.2)."""
        return cls._from_alphas_cumprod(_cosine(num_steps))

    @classmethod
    def interpolated(cls, num_steps: int) -> NoiseSchedule:
        """Linear near t = 0 and cosine near t = T - 1, with ᾱ interpolated between them; betas are capped at 0.999."""
        weight = np.arange(num_steps) / max(num_steps - 1, 1)
        linear = np.cumprod(1 - np.linspace(LINEAR_BETA_START, LINEAR_BETA_END, num_steps))
        return cls._from_alphas_cumprod((1 - weight) * linear + weight * _cosine(num_steps))

    @classmethod
    def named(cls, name: str, num_steps: int) -> NoiseSchedule:
        """A schedule by its name, one of `registry.SCHEDULES`.

        Raises:
            ValueError: there is no such schedule.
        """
        if name not in SCHEDULES:
            raise ValueError(f"schedule {name!r}: expected {one_of(SCHEDULES)}")
        constructor: Callable[[int], NoiseSchedule] = getattr(cls, name)
        return constructor(num_steps)

    @classmethod
    def _from_alphas_cumprod(cls, alphas_cumprod: NDArray[np.float64]) -> NoiseSchedule:
        ratios = alphas_cumprod / np.concatenate(([1.0], alphas_cumprod[:-1]))
        return cls.from_betas(np.minimum(1 - ratios, MAX_BETA))

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def at(self, timesteps: Sequence[float]) -> tuple[float, ...]:
        """ᾱ at whole timesteps."""
        return tuple(float(self.alphas_cumprod[int(timestep)]) for timestep in timesteps)


def _cosine(num_steps: int) -> NDArray[np.float64]:
    """ᾱ_0 … ᾱ_{num_steps-1} of the cosine schedule, uncapped: the last is nearly 0."""
    time = np.arange(num_steps + 1) / num_steps
    power = np.cos((time + COSINE_OFFSET) / (1 + COSINE_OFFSET) * np.pi / 2) ** 2
    return np.asarray(power[1:] / power[0])
