"""The sampler settings of a request: from command-line options to request parameters, and again on the server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from .registry import DEFAULT_SAMPLER, DEFAULT_SCHEDULE, make_sampler, one_of

if TYPE_CHECKING:
    from .base import Sampler

PARAMETER_PREFIX = "gomin."  # of config parameters, as in contract/model.py, which a Triton server does not have

_EXPECTED: dict[str, tuple[str, tuple[type, ...]]] = {
    "sampler": ("a name", (str,)),
    "steps": ("a whole number", (int,)),
    "schedule": ("a name", (str,)),
    "eta": ("a number", (int, float)),
    "timesteps": ("whole numbers with commas between them", (str,)),
}
_TIMESTEPS = re.compile(" *[0-9]{1,9}( *, *[0-9]{1,9})* *")


@dataclass(frozen=True)
class SamplerSettings:
    """The sampler settings of a request, named like the request parameters; None means not chosen.

    Attributes:
        sampler: one of `registry.SAMPLERS`.
        steps: the number of denoiser steps.
        schedule: the noise schedule that the model was trained with, one of `registry.SCHEDULES`.
        eta: share of fresh noise, of samplers that have an eta.
        timesteps: the steps' timesteps, of samplers that take explicit ones: decreasing whole numbers with commas
            between them, such as "49,30,12,0". Blanks beside the commas are removed.

    Raises:
        ValueError: a value of the wrong type. Names and ranges are checked by `make`.
    """

    sampler: str | None = None
    steps: int | None = None
    schedule: str | None = None
    eta: float | None = None
    timesteps: str | None = None

    def __post_init__(self) -> None:
        for name, value in self.to_parameters().items():
            kind, types = _EXPECTED[name]
            if not isinstance(value, types) or isinstance(value, bool):
                raise ValueError(f"{name} {value!r}: expected {kind}")
        if self.timesteps is not None:
            if not _TIMESTEPS.fullmatch(self.timesteps):
                raise ValueError(f"timesteps {self.timesteps!r}: expected {_EXPECTED['timesteps'][0]}")
            object.__setattr__(self, "timesteps", self.timesteps.replace(" ", ""))

    @classmethod
    def from_parameters(cls, given: Mapping[str, object]) -> SamplerSettings:
        """The settings in request parameters.

        Raises:
            ValueError: an unknown parameter, or a value of the wrong type.
        """
        for name, value in given.items():
            if name not in _EXPECTED:
                raise ValueError(f"unknown request parameter {name!r}: expected {one_of(_EXPECTED)}")
            if value is None:
                raise ValueError(f"{name} {value!r}: expected {_EXPECTED[name][0]}")
        return cls(**given)  # type: ignore[arg-type]  # checked by __post_init__

    @classmethod
    def from_config(cls, parameters: Mapping[str, str]) -> SamplerSettings:
        """A model's defaults in its config.pbtxt: gomin.sampler, gomin.steps and so on.

        Raises:
            ValueError: a value is not a number although one is expected.
        """
        given: dict[str, object] = {}
        readers = {"sampler": str, "steps": int, "schedule": str, "eta": float, "timesteps": str}
        for name, read in readers.items():
            text = parameters.get(PARAMETER_PREFIX + name)
            if text is not None:
                try:
                    given[name] = read(text)
                except ValueError:
                    raise ValueError(f"config parameter {PARAMETER_PREFIX}{name} is {text!r}: not a number") from None
        return cls.from_parameters(given)

    def over(self, default: SamplerSettings) -> SamplerSettings:
        """These settings, with values of `default` for the settings that are not chosen.

        Steps, eta and timesteps belong to a sampler. If the samplers differ, they are not taken from `default`. Of
        steps and timesteps, a choice of one replaces both.
        """
        if self.sampler not in (None, default.sampler or DEFAULT_SAMPLER):
            default = replace(default, steps=None, eta=None, timesteps=None)
        elif self.steps is not None or self.timesteps is not None:
            default = replace(default, steps=None, timesteps=None)
        return replace(default, **self.to_parameters())  # type: ignore[arg-type]

    def make(self, num_diffusion_steps: int) -> Sampler:
        """The sampler for a model with this number of timesteps; unchosen settings are as in the released program.

        Raises:
            ValueError: see `make_sampler` and `NoiseSchedule.named`.
        """
        from .schedules import NoiseSchedule  # imports numpy, which the command line's options do not need

        schedule = NoiseSchedule.named(self.schedule or DEFAULT_SCHEDULE, num_diffusion_steps)
        timesteps = None if self.timesteps is None else [int(timestep) for timestep in self.timesteps.split(",")]
        return make_sampler(self.sampler or DEFAULT_SAMPLER, schedule, self.steps, self.eta, timesteps)

    def resolved(self, num_diffusion_steps: int) -> SamplerSettings:
        """These settings with sampler, steps and schedule filled in; eta and timesteps are unchanged.

        Raises:
            ValueError: see `make`.
        """
        steps = len(self.make(num_diffusion_steps).timesteps)
        return replace(
            self, sampler=self.sampler or DEFAULT_SAMPLER, steps=steps, schedule=self.schedule or DEFAULT_SCHEDULE
        )

    def to_parameters(self) -> dict[str, str | int | float]:
        """The chosen settings as request parameters."""
        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in chosen.items() if value is not None}
