import numpy as np
import pytest

from gomin_client.sampling import dpm_solver
from gomin_client.sampling.base import sample
from gomin_client.sampling.dpm_solver import DPMSolver
from gomin_client.sampling.registry import SCHEDULES
from gomin_client.sampling.schedules import NoiseSchedule
from tests.client.sampling.denoisers import LINEAR, MEL, NOISE, STEPS, clipping
from tests.client.sampling.diffusers_oracle import ATOL, betas_of, run_scheduler


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_it_equals_diffusers(schedule: str, spacing: str) -> None:
    diffusers = pytest.importorskip("diffusers")  # takes seconds to import, here only in the process of this test

    for steps in (1, 2, 3, 14, 20, 49, [49, 47, 20, 3, 1]):
        scheduler = diffusers.DPMSolverMultistepScheduler(
            **betas_of(schedule), thresholding=True, timestep_spacing=spacing
        )

        result = sample(clipping, MEL, NOISE, DPMSolver(NoiseSchedule.named(schedule, STEPS), steps, spacing))

        np.testing.assert_allclose(result, run_scheduler(scheduler, steps), rtol=0, atol=ATOL)


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_timesteps_that_repeat_are_refused(spacing: str) -> None:
    with pytest.raises(ValueError, match="timesteps repeat; take fewer, or 'trailing'"):
        DPMSolver(LINEAR, STEPS, spacing)


@pytest.mark.parametrize(("timesteps", "steps"), [(10, 10), (19, 19), (21, 20), (50, 20)])
def test_the_default_is_20_steps_or_all_that_the_model_has(timesteps: int, steps: int) -> None:
    assert len(dpm_solver.make(NoiseSchedule.linear(timesteps)).timesteps) == steps


def test_an_unknown_spacing() -> None:
    with pytest.raises(ValueError, match="spacing 'even': expected leading, linspace or trailing"):
        DPMSolver(LINEAR, 10, spacing="even")
