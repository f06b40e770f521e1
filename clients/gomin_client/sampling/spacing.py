"""Timesteps of samplers that use a subset of the trained ones."""

from __future__ import annotations

from collections.abc import Mapping

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
