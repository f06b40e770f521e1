"""DiffWave's fast sampling: six large steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .ddpm import DDPM, check_fixed_steps
from .schedules import NoiseSchedule

FAST_BETAS = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5)  # Kong et al. 2020, appendix C


class FastDDPM(DDPM):
    """DDPM over a few large betas (Kong et al. 2020, section 3.1 and appendix B).

    Each level of noise is matched with the trained schedule, linearly in √ᾱ, which gives fractional timesteps; a level
    below timestep 0 takes timestep 0. The predicted signal is clipped as in the whole chain.
    """

    def __init__(self, trained: NoiseSchedule, betas: Sequence[float] = FAST_BETAS) -> None:
        """A chain over given betas.

        Args:
            trained: the schedule that the model was trained with.
            betas: the betas of the chain, in order of rising noise.

        Raises:
            ValueError: the last level has more noise than the denoiser was trained with.
        """
        schedule = NoiseSchedule.from_betas(betas)
        levels, own = (np.sqrt(s.alphas_cumprod.astype(np.float64)) for s in (trained, schedule))
        if own[-1] < levels[-1]:
            raise ValueError(
                f"sampler fast begins with more noise (ᾱ = {own[-1] ** 2:.3f}) than the model's last timestep has "
                f"(ᾱ = {levels[-1] ** 2:.3f}): take another sampler"
            )
        super().__init__(schedule, np.interp(own, levels[::-1], np.arange(len(trained))[::-1]).tolist())


def make(schedule: NoiseSchedule, steps: int | None = None) -> FastDDPM:
    """The chain over DiffWave's betas.

    Raises:
        ValueError: another number of steps; or see `FastDDPM`.
    """
    check_fixed_steps("fast", steps, len(FAST_BETAS))
    return FastDDPM(schedule)
