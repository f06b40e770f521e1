"""DPM-Solver++(2M): few steps, of second order."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .base import Array, Chain, NoiseSource, predicted_signal
from .multistep import MultistepSolver
from .schedules import NoiseSchedule
from .spacing import steps_or_timesteps

DEFAULT_STEPS = 20  # fewer if the model has fewer timesteps


class DPMSolver(MultistepSolver):
    """DPM-Solver++(2M): few steps, no fresh noise, second order (Lu et al. 2022, algorithm 2).

    Equal to diffusers' DPMSolverMultistepScheduler with the same betas and timestep_spacing, algorithm_type
    "dpmsolver++", solver_order=2, solver_type "midpoint", final_sigmas_type "zero" (so the last step is of first order
    for every lower_order_final), steps_offset=0. It has no clip_sample; thresholding=True with sample_max_value=1, its
    default, is the clipping of the predicted signal to [-1, 1] that is done here.
    """

    def chain(self, noise: NoiseSource) -> Chain:
        """See `Sampler.chain`."""
        times = self.times
        x = noise(0)
        before: Array | None = None  # predicted by the previous step
        for step, alpha_bar in enumerate(self.alphas_cumprod):
            epsilon = yield x, self.timesteps[step]
            x0 = predicted_signal(x, epsilon, alpha_bar)
            if step + 1 == len(times):
                break
            target = x0
            if before is not None:
                target = x0 + (times[step + 1] - times[step]) / (times[step] - times[step - 1]) / 2 * (x0 - before)
            x = self._advance(x, target, step, noise)
            before = x0
        return x0

    def _advance(self, x: Array, target: Array, step: int, _noise: NoiseSource) -> Array:
        """The signal after a step, (B, 1, N), if the predicted signal were `target` all along."""
        alpha_bar, following = self.alphas_cumprod[step : step + 2]
        h = self.times[step + 1] - self.times[step]
        return math.sqrt((1 - following) / (1 - alpha_bar)) * x - math.sqrt(following) * math.expm1(-h) * target


def make(schedule: NoiseSchedule, steps: int | None = None, timesteps: Sequence[int] | None = None) -> DPMSolver:
    """A chain of any number of steps, or of given timesteps.

    Raises:
        ValueError: see `solver_timesteps`.
    """
    return DPMSolver(schedule, steps_or_timesteps(schedule, steps, timesteps, DEFAULT_STEPS))
