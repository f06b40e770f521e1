"""The chains of diffusers' schedulers, as an independent oracle."""

from __future__ import annotations

from typing import Any

import numpy as np

from gomin_client.sampling.base import Array
from tests.client.sampling.denoisers import MEL, NOISE, STEPS, clipping

ATOL = 1e-5


def run_scheduler(scheduler: Any, steps: int, **options: Any) -> Array:
    """The chain of a scheduler; in float64 where it would magnify the last bits of float32 a thousand times."""
    import torch
    from diffusers import DPMSolverMultistepScheduler

    dtype = torch.float32 if scheduler.alphas_cumprod[-1] > 0.1 else torch.float64
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(dtype)
    scheduler.set_timesteps(steps)
    if isinstance(scheduler, DPMSolverMultistepScheduler) and dtype == torch.float64:
        alphas_cumprod = scheduler.alphas_cumprod[scheduler.timesteps]
        scheduler.sigmas = torch.cat([((1 - alphas_cumprod) / alphas_cumprod).sqrt(), torch.zeros(1)])
    x = torch.from_numpy(NOISE(0)).to(dtype)
    for draw, t in enumerate(scheduler.timesteps[:steps], start=1):
        predicted = torch.from_numpy(clipping(x.float().numpy(), np.full(len(x), int(t), np.float32), MEL))
        if "eta" in options:
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
