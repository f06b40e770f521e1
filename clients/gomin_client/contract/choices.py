"""Names that options list, available without numpy, so that the command line starts fast."""

from __future__ import annotations

from dataclasses import fields

from gomin_client.sampling import registry
from gomin_client.sampling.settings import SamplerSettings

SAMPLER_PARAMETERS = tuple(field.name for field in fields(SamplerSettings))  # request parameters of a diffusion model
SAMPLERS = ", ".join(f"{sampler.name} ({sampler.summary})" for sampler in registry.SAMPLERS.values())  # for help texts
SCHEDULES = registry.SCHEDULES

MOST_CONCURRENT = 64  # maximum number of requests that one client has in flight
