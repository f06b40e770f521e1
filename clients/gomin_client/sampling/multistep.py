"""What the multistep solvers share."""

from __future__ import annotations

from collections.abc import Sequence

from .base import half_log_snr
from .schedules import NoiseSchedule
from .spacing import solver_timesteps


class MultistepSolver:
    """A solver whose steps use the predictions of earlier steps too; subclasses have the chain.

    Attributes:
        schedule: the schedule that the model was trained with.
        timesteps: see `Sampler`.
        alphas_cumprod: see `Sampler`.
        times: half the log signal-to-noise ratio at each step, see `half_log_snr`.
    """

    def __init__(self, schedule: NoiseSchedule, steps: int | Sequence[int], spacing: str = "trailing") -> None:
        """A chain over some timesteps of a schedule; for steps, spacing and errors see `solver_timesteps`."""
        self.schedule = schedule
        self.timesteps = solver_timesteps(steps, schedule, spacing)
        self.alphas_cumprod = schedule.at(self.timesteps)
        self.times = tuple(half_log_snr(alpha_bar) for alpha_bar in self.alphas_cumprod)
