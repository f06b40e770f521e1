"""Samplers and schedules by name. Neither numpy nor a sampler is imported until one is made: options list the names."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Sampler
    from .schedules import NoiseSchedule

DEFAULT_SAMPLER = "ddpm"  # GOMIN's released chain
DEFAULT_SCHEDULE = "linear"

SCHEDULES = ("linear", "cosine", "interpolated")  # constructors of `schedules.NoiseSchedule`

# (schedule, steps=None), eta with its default if the sampler has one, and timesteps=None if it takes explicit ones ->
# sampler
Maker = Callable[..., "Sampler"]


@dataclass(frozen=True)
class Registered:
    """A sampler that can be named.

    Attributes:
        name: the name in options and request parameters.
        summary: a few words for help texts.
        make: the function that makes the sampler, or the name of a module with a function `make`, relative to this
            package if it begins with a dot.
    """

    name: str
    summary: str
    make: Maker | str

    def maker(self) -> Maker:
        """The function that makes the sampler; imports its module."""
        if isinstance(self.make, str):
            found: Maker = importlib.import_module(self.make, __package__).make
            return found
        return self.make


_BUILT_IN = (
    Registered("ddpm", "all timesteps, as released", ".ddpm"),
    Registered("fast", "6 large steps", ".fast"),
    Registered("ddim", "any number of steps", ".ddim"),
    Registered("dpm++", "any number of steps, second order", ".dpm_solver"),
    Registered("dpm++sde", "as dpm++, with fresh noise", ".dpm_solver_sde"),
    Registered("unipc", "any number of steps, second order with correction", ".unipc"),
)
SAMPLERS = {sampler.name: sampler for sampler in _BUILT_IN}  # by name, in the order of help texts


def register(name: str, summary: str, make: Maker | str) -> None:
    """Add a sampler of your own, so that options and settings know its name; arguments: see `Registered`.

    Raises:
        ValueError: the name is taken.
    """
    if name in SAMPLERS:
        raise ValueError(f"sampler {name!r} is already registered")
    SAMPLERS[name] = Registered(name, summary, make)


def make_sampler(
    name: str,
    schedule: NoiseSchedule,
    steps: int | None = None,
    eta: float | None = None,
    timesteps: Sequence[int] | None = None,
) -> Sampler:
    """A sampler by its name.

    Args:
        name: one of `SAMPLERS`.
        schedule: the schedule that the model was trained with.
        steps: the number of steps; None for the sampler's own.
        eta: share of fresh noise, of samplers that have an eta; None for the sampler's own.
        timesteps: the steps' timesteps, decreasing, of samplers that take explicit ones; None for the sampler's own.

    Raises:
        ValueError: an unknown name, or parameters that the sampler does not take.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler {name!r}: expected {one_of(SAMPLERS)}")
    make = SAMPLERS[name].maker()
    options: dict[str, Any] = {}
    if eta is not None:
        if not takes(name, "eta"):
            raise ValueError(f"eta {eta:g}: only sampler {one_of(that_take('eta'))} has an eta, {name} has none")
        options["eta"] = eta
    if timesteps is not None:
        if not takes(name, "timesteps"):
            raise ValueError(f"timesteps: sampler {name} takes none; take {one_of(that_take('timesteps'))}")
        if steps not in (None, len(timesteps)):
            raise ValueError(f"steps {steps}: there are {len(timesteps)} timesteps; leave out one of the two")
        options["timesteps"] = timesteps
    return make(schedule, steps, **options)


def takes(sampler: str, option: str) -> bool:
    """Whether a sampler, by its name, takes an option: "eta" or "timesteps"."""
    return option in inspect.signature(SAMPLERS[sampler].maker()).parameters


def that_take(option: str) -> list[str]:
    """The names of the samplers that take an option; see `takes`."""
    return [name for name in SAMPLERS if takes(name, option)]


def one_of(names: Iterable[str]) -> str:
    """A list in words: "a, b or c"."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
