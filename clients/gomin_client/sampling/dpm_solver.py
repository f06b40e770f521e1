"""DPM-Solver++(2M): few steps, of second order."""

from __future__ import annotations

import math

import numpy as np

from .base import Array, Chain, NoiseSource, predicted_signal
from .schedules import NoiseSchedule
from .spacing import check_steps, choose_spacing, trailing

DEFAULT_STEPS = 20  # fewer if the model has fewer timesteps


class DPMSolver:
    """DPM-Solver++(2M): few steps, no fresh noise, second order (Lu et al. 2022, algorithm 2).

    Equal to diffusers' DPMSolverMultistepScheduler with the same betas and timestep_spacing, algorithm_type
    "dpmsolver++", solver_order=2, solver_type "midpoint", final_sigmas_type "zero" (so the last step is of first order
    for every lower_order_final), steps_offset=0. It has no clip_sample; thresholding=True with sample_max_value=1, its
    default, is the clipping of the predicted signal to [-1, 1] that is done here.
    """

    def __init__(self, schedule: NoiseSchedule, steps: int, spacing: str = "trailing") -> None:
        """A chain over some timesteps of a schedule.

        Args:
            schedule: the schedule that the model was trained with.
            steps: the number of steps.
            spacing: "trailing", "leading" or "linspace", as in diffusers for this solver. The last two skip
                timestep 0.

        Raises:
            ValueError: steps or spacing is out of range, or timesteps repeat because there are too many steps.
        """
        self.schedule = schedule
        total = check_steps(steps, schedule)
        descending = {
            "leading": np.arange(steps, 0.0, -1) * (total // (steps + 1)),
            "linspace": np.linspace(0, total - 1, steps + 1).round()[:0:-1],
            "trailing": trailing(total, steps),
        }
        self.timesteps = choose_spacing(spacing, descending)
        if len(set(self.timesteps)) < steps:
            raise ValueError(f"steps {steps}: with spacing {spacing!r}, timesteps repeat; take fewer, or 'trailing'")

    def chain(self, noise: NoiseSource) -> Chain:
        """See `Sampler.chain`."""
        alphas_cumprod = [float(self.schedule.alphas_cumprod[int(timestep)]) for timestep in self.timesteps]
        half_log_snr = [math.log(alpha_bar / (1 - alpha_bar)) / 2 for alpha_bar in alphas_cumprod]
        x = noise(0)
        before: Array | None = None  # predicted by the previous step
        for step, alpha_bar in enumerate(alphas_cumprod):
            epsilon = yield x, self.timesteps[step]
            x0 = predicted_signal(x, epsilon, alpha_bar)
            if step + 1 == len(alphas_cumprod):
                break
            following = alphas_cumprod[step + 1]
            h = half_log_snr[step + 1] - half_log_snr[step]
            target = x0
            if before is not None:
                target = x0 + h / (half_log_snr[step] - half_log_snr[step - 1]) / 2 * (x0 - before)
            x = math.sqrt((1 - following) / (1 - alpha_bar)) * x - math.sqrt(following) * math.expm1(-h) * target
            before = x0
        return x0


def make(schedule: NoiseSchedule, steps: int | None = None) -> DPMSolver:
    """A chain of any number of steps.

    Raises:
        ValueError: see `DPMSolver`.
    """
    return DPMSolver(schedule, min(DEFAULT_STEPS, len(schedule)) if steps is None else steps)
