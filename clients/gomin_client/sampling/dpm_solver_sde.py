"""DPM-Solver++(2M) SDE: few steps, of second order, with fresh noise in each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .base import Array, Chain, NoiseSource, half_log_snr, predicted_signal
from .schedules import NoiseSchedule
from .spacing import solver_timesteps

DEFAULT_STEPS = 25  # fewer if the model has fewer timesteps


class SDEDPMSolver:
    """SDE-DPM-Solver++(2M): few steps, fresh noise in each, second order (Lu et al. 2022).

    Equal to diffusers' DPMSolverMultistepScheduler with algorithm_type "sde-dpmsolver++" and otherwise the settings
    that `dpm_solver.DPMSolver` names, if its variance_noise of step k is draw k. The predicted signal is clipped to
    [-1, 1].
    """

    def __init__(self, schedule: NoiseSchedule, steps: int | Sequence[int], spacing: str = "trailing") -> None:
        """A chain over some timesteps of a schedule; for steps, spacing and errors see `solver_timesteps`."""
        self.schedule = schedule
        self.timesteps = solver_timesteps(steps, schedule, spacing)
        self.alphas_cumprod = schedule.at(self.timesteps)

    def chain(self, noise: NoiseSource) -> Chain:
        """See `Sampler.chain`."""
        alphas_cumprod = self.alphas_cumprod
        times = [half_log_snr(alpha_bar) for alpha_bar in alphas_cumprod]
        x = noise(0)
        before: Array | None = None  # predicted by the previous step
        for step, alpha_bar in enumerate(alphas_cumprod):
            epsilon = yield x, self.timesteps[step]
            x0 = predicted_signal(x, epsilon, alpha_bar)
            if step + 1 == len(alphas_cumprod):
                break
            following = alphas_cumprod[step + 1]
            h = times[step + 1] - times[step]
            target = x0
            if before is not None:
                target = x0 + h / (times[step] - times[step - 1]) / 2 * (x0 - before)
            share = -math.expm1(-2 * h)  # of the power that this step replaces
            x = (
                math.sqrt((1 - following) / (1 - alpha_bar)) * math.exp(-h) * x
                + math.sqrt(following) * share * target
                + math.sqrt((1 - following) * share) * noise(step + 1)
            )
            before = x0
        return x0


def make(schedule: NoiseSchedule, steps: int | None = None, timesteps: Sequence[int] | None = None) -> SDEDPMSolver:
    """A chain of any number of steps, or of given timesteps.

    Raises:
        ValueError: see `solver_timesteps`.
    """
    if timesteps is not None:
        return SDEDPMSolver(schedule, timesteps)
    return SDEDPMSolver(schedule, min(DEFAULT_STEPS, len(schedule)) if steps is None else steps)
