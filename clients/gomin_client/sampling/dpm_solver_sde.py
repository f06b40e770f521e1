"""DPM-Solver++(2M) SDE: few steps, of second order, with fresh noise in each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .base import Array, NoiseSource
from .dpm_solver import DPMSolver
from .schedules import NoiseSchedule
from .spacing import steps_or_timesteps

DEFAULT_STEPS = 25  # fewer if the model has fewer timesteps


class SDEDPMSolver(DPMSolver):
    """SDE-DPM-Solver++(2M): few steps, fresh noise in each, second order (Lu et al. 2022).

    Equal to diffusers' DPMSolverMultistepScheduler with algorithm_type "sde-dpmsolver++" and otherwise the settings
    that `DPMSolver` names, if its variance_noise of step k is draw k. The predicted signal is clipped to
    [-1, 1].
    """

    def _advance(self, x: Array, target: Array, step: int, noise: NoiseSource) -> Array:
        """See `DPMSolver._advance`."""
        alpha_bar, following = self.alphas_cumprod[step : step + 2]
        h = self.times[step + 1] - self.times[step]
        share = -math.expm1(-2 * h)  # of the power that this step replaces
        advanced: Array = (
            math.sqrt((1 - following) / (1 - alpha_bar)) * math.exp(-h) * x
            + math.sqrt(following) * share * target
            + math.sqrt((1 - following) * share) * noise(step + 1)
        )
        return advanced


def make(schedule: NoiseSchedule, steps: int | None = None, timesteps: Sequence[int] | None = None) -> SDEDPMSolver:
    """A chain of any number of steps, or of given timesteps.

    Raises:
        ValueError: see `solver_timesteps`.
    """
    return SDEDPMSolver(schedule, steps_or_timesteps(schedule, steps, timesteps, DEFAULT_STEPS))
