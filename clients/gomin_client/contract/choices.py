"""Names that options list and models understand, without numpy, so that the command line starts at once."""

from __future__ import annotations

# Request parameters of a diffusion model, and what two of them may be; sampling.py says what they mean.
SAMPLER_PARAMETERS = ("sampler", "steps", "schedule", "eta")
SAMPLERS = ("ddpm", "fast", "ddim", "dpm++")
SCHEDULES = ("linear", "cosine", "interpolated")

MOST_CONCURRENT = 64  # requests that one client has under way
