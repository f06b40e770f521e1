import numpy as np
import pytest

from gomin_client.sampling import dpm_solver_sde
from gomin_client.sampling.base import sample
from gomin_client.sampling.dpm_solver_sde import SDEDPMSolver
from gomin_client.sampling.registry import SCHEDULES
from gomin_client.sampling.schedules import NoiseSchedule
from tests.client.sampling.denoisers import LINEAR, MEL, NOISE, STEPS, clipping
from tests.client.sampling.diffusers_oracle import ATOL, betas_of, run_scheduler


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 14, 20, 49, [49, 47, 20, 3, 1]], ids=str)
def test_it_equals_diffusers(schedule: str, steps: int | list[int]) -> None:
    pytest.importorskip("diffusers")
    from diffusers import DPMSolverMultistepScheduler  # takes seconds to import

    scheduler = DPMSolverMultistepScheduler(
        **betas_of(schedule), algorithm_type="sde-dpmsolver++", thresholding=True, timestep_spacing="trailing"
    )

    result = sample(clipping, MEL, NOISE, SDEDPMSolver(NoiseSchedule.named(schedule, STEPS), steps))

    np.testing.assert_allclose(result, run_scheduler(scheduler, steps), rtol=0, atol=ATOL)


def test_the_default_is_25_steps_or_all_that_the_model_has() -> None:
    assert len(dpm_solver_sde.make(NoiseSchedule.linear(10)).timesteps) == 10
    assert len(dpm_solver_sde.make(LINEAR).timesteps) == 25
    assert dpm_solver_sde.make(LINEAR, timesteps=[30, 2]).timesteps == (30, 2)
