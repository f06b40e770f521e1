"""DDIM: a subset of the trained timesteps; eta sets the amount of fresh noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .base import Chain, NoiseSource, predicted_signal
from .schedules import NoiseSchedule
from .spacing import check_steps, check_timesteps, choose_spacing, steps_or_timesteps, trailing

DEFAULT_STEPS = 25  # fewer if the model has fewer timesteps


class DDIM:
    """Some of the trained timesteps; deterministic with eta 0, as noisy as DDPM with eta 1 (Song et al. 2021, eq. 12).

    Equal to diffusers' DDIMScheduler with the same betas and timestep_spacing, clip_sample=True, clip_sample_range=1,
    set_alpha_to_one=True, steps_offset=0, use_clipped_model_output=False, where T // steps is the distance between all
    timesteps. Elsewhere that scheduler goes from t to t - T // steps, which is not the next timestep (its issue 9261):
    the denoiser is then given other noise levels than it is told. Here, every step goes to the next timestep.
    """

    def __init__(
        self, schedule: NoiseSchedule, steps: int | Sequence[int], eta: float = 0.0, spacing: str = "trailing"
    ) -> None:
        """A chain over some timesteps of a schedule.

        Args:
            schedule: the schedule that the model was trained with.
            steps: the number of steps, or their timesteps, which decrease.
            eta: share of fresh noise, 0 … 1.
            spacing: "trailing", "leading" or "linspace", as in diffusers; "trailing" begins with the last
                timestep, which matches a start from pure noise. Explicit timesteps have no spacing.

        Raises:
            ValueError: steps, timesteps, eta or spacing is out of range.
        """
        if not 0 <= eta <= 1:
            raise ValueError(f"eta {eta:g}: expected a number from 0 (no fresh noise) to 1 (as much as ddpm)")
        self.schedule = schedule
        self.eta = eta
        self.timesteps: tuple[float, ...]
        if not isinstance(steps, int):
            self.timesteps = check_timesteps(steps, schedule)
            self.alphas_cumprod = schedule.at(self.timesteps)
            return
        total = check_steps(steps, schedule)
        descending = {
            "leading": np.arange(steps - 1.0, -1, -1) * (total // steps),
            "linspace": np.linspace(0, total - 1, steps).round()[::-1],
            "trailing": trailing(total, steps),
        }
        self.timesteps = choose_spacing(spacing, descending)
        self.alphas_cumprod = schedule.at(self.timesteps)

    def chain(self, noise: NoiseSource) -> Chain:
        """See `Sampler.chain`."""
        x = noise(0)
        steps = zip(self.timesteps, self.alphas_cumprod, [*self.alphas_cumprod[1:], 1.0], strict=True)
        for draw, (timestep, alpha_bar, previous) in enumerate(steps, start=1):
            fresh = self.eta * math.sqrt((1 - previous) / (1 - alpha_bar) * (1 - alpha_bar / previous))

            epsilon = yield x, timestep
            x0 = predicted_signal(x, epsilon, alpha_bar)
            x = math.sqrt(previous) * x0 + math.sqrt(max(1 - previous - fresh**2, 0.0)) * epsilon
            if fresh > 0:
                x = x + fresh * noise(draw)
        return x


def make(
    schedule: NoiseSchedule, steps: int | None = None, eta: float = 0.0, timesteps: Sequence[int] | None = None
) -> DDIM:
    """A chain of any number of steps, or of given timesteps.

    Raises:
        ValueError: see `DDIM`.
    """
    return DDIM(schedule, steps_or_timesteps(schedule, steps, timesteps, DEFAULT_STEPS), eta)
