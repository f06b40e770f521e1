"""UniPC: a predictor of second order, corrected by the next prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .base import Array, Chain, NoiseSource, predicted_signal
from .multistep import MultistepSolver
from .schedules import NoiseSchedule
from .spacing import steps_or_timesteps

DEFAULT_STEPS = 10  # fewer if the model has fewer timesteps


class UniPC(MultistepSolver):
    """UniPC of order 2 for predicted signals, with B(h) = exp(h) - 1, "bh2" (Zhao et al. 2023).

    Each prediction first corrects the sample of the step before, without another denoiser call, and then predicts the
    next one. Equal to diffusers' UniPCMultistepScheduler with the same betas and timestep_spacing, and its defaults
    solver_order=2, solver_type "bh2", predict_x0=True, lower_order_final=True, final_sigmas_type "zero" and
    steps_offset=0. It has no clip_sample; thresholding=True with sample_max_value=1, its default, is the clipping of
    the predicted signal to [-1, 1] that is done here.
    """

    def chain(self, noise: NoiseSource) -> Chain:
        """See `Sampler.chain`."""
        alphas_cumprod, times = self.alphas_cumprod, self.times
        x = noise(0)
        corrected = x  # the sample of the previous step
        before: Array | None = None  # predicted by the previous step
        earlier: Array | None = None  # predicted by the one before it
        for step, alpha_bar in enumerate(alphas_cumprod):
            epsilon = yield x, self.timesteps[step]
            x0 = predicted_signal(x, epsilon, alpha_bar)
            if step + 1 == len(alphas_cumprod):
                break
            if before is None:
                corrected, target = x, x0
            else:
                h = times[step] - times[step - 1]
                if earlier is None:
                    correction = before + 0.5 * (x0 - before)
                else:
                    ratio = (times[step - 1] - times[step - 2]) / h
                    past, present = corrector_weights(h, ratio)
                    correction = before + past / ratio * (before - earlier) + present * (x0 - before)
                corrected = _update(corrected, correction, alphas_cumprod[step - 1], alpha_bar, h)
                target = x0 + (times[step + 1] - times[step]) / h / 2 * (x0 - before)
            x = _update(corrected, target, alpha_bar, alphas_cumprod[step + 1], times[step + 1] - times[step])
            earlier, before = before, x0
        return x0


def corrector_weights(h: float, ratio: float) -> tuple[float, float]:
    """The weights of the past and of the present difference of predictions in a corrector of order 2.

    Args:
        h: length of the step that is corrected.
        ratio: length of the step before it, divided by h.
    """
    shrink = math.expm1(-h)
    first = -shrink / h - 1
    second = -first / h - 0.5
    past = (first - 2 * second) / shrink / (1 + ratio)
    return past, first / shrink - past


def _update(x: Array, target: Array, alpha_bar: float, following: float, h: float) -> Array:
    """The exact solution of a step of length h if the signal were `target` all along; all arrays (B, 1, N)."""
    return math.sqrt((1 - following) / (1 - alpha_bar)) * x - math.sqrt(following) * math.expm1(-h) * target


def make(schedule: NoiseSchedule, steps: int | None = None, timesteps: Sequence[int] | None = None) -> UniPC:
    """A chain of any number of steps, or of given timesteps.

    Raises:
        ValueError: see `solver_timesteps`.
    """
    return UniPC(schedule, steps_or_timesteps(schedule, steps, timesteps, DEFAULT_STEPS))
