import numpy as np
import pytest

from gomin_client.sampling import unipc
from gomin_client.sampling.base import sample
from gomin_client.sampling.registry import SCHEDULES
from gomin_client.sampling.schedules import NoiseSchedule
from gomin_client.sampling.unipc import UniPC
from tests.client.sampling.denoisers import LINEAR, MEL, NOISE, STEPS, clipping
from tests.client.sampling.diffusers_oracle import ATOL, betas_of, run_scheduler


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_it_equals_diffusers(schedule: str, spacing: str) -> None:
    pytest.importorskip("diffusers")
    from diffusers import UniPCMultistepScheduler  # takes seconds to import

    for steps in (1, 2, 3, 10, 20, 49, [49, 47, 20, 3, 1]):
        scheduler = UniPCMultistepScheduler(**betas_of(schedule), thresholding=True, timestep_spacing=spacing)

        result = sample(clipping, MEL, NOISE, UniPC(NoiseSchedule.named(schedule, STEPS), steps, spacing))

        np.testing.assert_allclose(result, run_scheduler(scheduler, steps), rtol=0, atol=ATOL, err_msg=str(steps))


def test_the_default_is_10_steps_or_all_that_the_model_has() -> None:
    assert len(unipc.make(NoiseSchedule.linear(7)).timesteps) == 7
    assert len(unipc.make(LINEAR).timesteps) == 10
    assert unipc.make(LINEAR, timesteps=[30, 2]).timesteps == (30, 2)
