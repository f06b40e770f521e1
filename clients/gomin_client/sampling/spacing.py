"""Timesteps of samplers that use a subset of the trained ones."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .registry import one_of
from .schedules import NoiseSchedule


def check_steps(steps: int, schedule: NoiseSchedule) -> int:
    """The number of timesteps of a schedule, which must be enough for this number of steps.

    Raises:
        ValueError: fewer steps than 1, or more than timesteps.
    """
    if not 1 <= steps <= len(schedule):
        raise ValueError(f"steps {steps}: expected 1 to {len(schedule)}, the timesteps that the model was trained with")
    return len(schedule)


def check_timesteps(timesteps: Sequence[int], schedule: NoiseSchedule) -> tuple[float, ...]:
    """Explicit timesteps, which must decrease and be timesteps of the schedule.

    Raises:
        ValueError: they do not, or there are none.
    """
    if not timesteps:
        raise ValueError("timesteps: expected one or more")
    for timestep in timesteps:
        if not 0 <= timestep < len(schedule):
            raise ValueError(
                f"timesteps: {timestep} is out of range; expected 0 to {len(schedule) - 1}, the timesteps that the "
                "model was trained with"
            )
    for one, following in itertools.pairwise(timesteps):
        if following >= one:
            raise ValueError(f"timesteps: {following} follows {one}; expected each to be less than the one before")
    return tuple(float(timestep) for timestep in timesteps)


def steps_or_timesteps(
    schedule: NoiseSchedule, steps: int | None, timesteps: Sequence[int] | None, default: int
) -> int | Sequence[int]:
    """The explicit timesteps if there are any, or the number of steps.

    Args:
        schedule: the schedule that the model was trained with.
        steps: the number of steps, if it is chosen.
        timesteps: explicit timesteps, if they are chosen.
        default: the number of steps otherwise; fewer if the schedule has fewer timesteps.
    """
    if timesteps is not None:
        return timesteps
    return min(default, len(schedule)) if steps is None else steps


def solver_timesteps(steps: int | Sequence[int], schedule: NoiseSchedule, spacing: str) -> tuple[float, ...]:
    """The timesteps of a multistep solver.

    Args:
        steps: the number of steps, or their timesteps, which have no spacing.
        schedule: the schedule that the model was trained with.
        spacing: "trailing", "leading" or "linspace", as in diffusers for these solvers. The last two skip timestep 0.

    Raises:
        ValueError: steps, timesteps or spacing is out of range, or timesteps repeat because there are too many steps.
    """
    if not isinstance(steps, int):
        return check_timesteps(steps, schedule)
    total = check_steps(steps, schedule)
    descending = {
        "leading": np.arange(steps, 0.0, -1) * (total // (steps + 1)),
        "linspace": np.linspace(0, total - 1, steps + 1).round()[:0:-1],
        "trailing": trailing(total, steps),
    }
    timesteps = choose_spacing(spacing, descending)
    if len(set(timesteps)) < steps:
        raise ValueError(f"steps {steps}: with spacing {spacing!r}, timesteps repeat; take fewer, or 'trailing'")
    return timesteps


def trailing(total: int, steps: int) -> NDArray[np.float64]:
    """(steps,) timesteps of the spacing "trailing", descending from total - 1."""
    # rounding can add timestep -1, which diffusers then feeds to the model
    return np.arange(total, 0, -total / steps).round()[:steps] - 1


def choose_spacing(spacing: str, descending: Mapping[str, NDArray[np.float64]]) -> tuple[float, ...]:
    """The timesteps of one of a sampler's spacings.

    Raises:
        ValueError: the sampler has no such spacing.
    """
    if spacing not in descending:
        raise ValueError(f"spacing {spacing!r}: expected {one_of(descending)}")
    return tuple(descending[spacing].tolist())
