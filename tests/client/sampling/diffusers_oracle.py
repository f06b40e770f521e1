"""The chains of diffusers' schedulers, as an independent oracle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gomin_client.sampling.base import Array
from tests.client.sampling.denoisers import MEL, NOISE, STEPS, clipping

ATOL = 1e-5


def run_scheduler(scheduler: Any, steps: int | Sequence[int], **options: Any) -> Array:
    """The chain of a scheduler; in float64 where it would magnify the last bits of float32 a thousand times.

    Args:
        scheduler: a scheduler of diffusers.
        steps: the number of steps, or their timesteps.
        options: of every step; the noise of the steps is given to those that name an eta and to those of an SDE.
    """
    import torch
    from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

    is_unipc = isinstance(scheduler, UniPCMultistepScheduler)  # its corrector divides small differences
    dtype = torch.float32 if scheduler.alphas_cumprod[-1] > 0.1 and not is_unipc else torch.float64
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(dtype)
    if isinstance(steps, int):
        scheduler.set_timesteps(steps)
    elif isinstance(scheduler, DPMSolverMultistepScheduler):
        scheduler.set_timesteps(timesteps=steps)
    else:  # takes no explicit timesteps, but looks at nothing else
        scheduler.set_timesteps(len(steps))
        scheduler.timesteps = torch.tensor(steps)
    if is_unipc or (isinstance(scheduler, DPMSolverMultistepScheduler) and dtype == torch.float64):
        alphas_cumprod = scheduler.alphas_cumprod[scheduler.timesteps]
        scheduler.sigmas = torch.cat([((1 - alphas_cumprod) / alphas_cumprod).sqrt(), torch.zeros(1)])
    x = torch.from_numpy(NOISE(0)).to(dtype)
    count = steps if isinstance(steps, int) else len(steps)
    has_noise = "eta" in options or getattr(scheduler.config, "algorithm_type", "").startswith("sde-")
    for draw, t in enumerate(scheduler.timesteps[:count], start=1):
        predicted = torch.from_numpy(clipping(x.float().numpy(), np.full(len(x), int(t), np.float32), MEL))
        if has_noise:
            options["variance_noise"] = torch.from_numpy(NOISE(draw))
        x = scheduler.step(predicted.to(dtype), t, x, **options).prev_sample
    return x.numpy()


def betas_of(schedule: str) -> dict[str, Any]:
    """The arguments that give diffusers' schedulers the betas of one of ours."""
    if schedule == "linear":
        return {"num_train_timesteps": STEPS, "beta_start": 1e-4, "beta_end": 0.05}
    if schedule == "cosine":
        return {"num_train_timesteps": STEPS, "beta_schedule": "squaredcos_cap_v2"}
    linear = np.cumprod(1 - np.linspace(1e-4, 0.05, STEPS))
    u = (np.arange(STEPS + 1) / STEPS + 0.008) / 1.008
    cosine = np.cos(u * np.pi / 2)[1:] ** 2 / np.cos(u[0] * np.pi / 2) ** 2
    weight = np.arange(STEPS) / (STEPS - 1)
    alphas_cumprod = (1 - weight) * linear + weight * cosine
    betas = 1 - alphas_cumprod / np.append(1, alphas_cumprod[:-1])
    return {"num_train_timesteps": STEPS, "trained_betas": np.minimum(betas, 0.999)}
