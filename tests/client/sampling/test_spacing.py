import numpy as np
import pytest

from gomin_client.sampling.registry import make_sampler
from gomin_client.sampling.schedules import NoiseSchedule


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_any_number_of_steps_keeps_to_the_models_timesteps(name: str) -> None:
    for total in (1, 6, 50, 200):
        schedule = NoiseSchedule.linear(total)
        for steps in range(1, total + 1):
            timesteps = make_sampler(name, schedule, steps).timesteps
            assert len(timesteps) == steps
            assert timesteps[0] == total - 1
            assert timesteps[-1] >= 0
            assert (np.diff(timesteps) < 0).all()
