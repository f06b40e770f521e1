import unittest.mock
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from gomin_client.sampling import ddim
from gomin_client.sampling.base import Array, predicted_signal, sample
from gomin_client.sampling.ddim import DDIM
from gomin_client.sampling.ddpm import DDPM
from gomin_client.sampling.registry import SCHEDULES
from gomin_client.sampling.schedules import NoiseSchedule
from tests.client.sampling.denoisers import LINEAR, MEL, NOISE, STEPS, clipping, timid
from tests.client.sampling.diffusers_oracle import ATOL, betas_of, run_scheduler


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_it_equals_diffusers(schedule: str, spacing: str, eta: float) -> None:
    diffusers = pytest.importorskip("diffusers")  # takes seconds to import, here only in the process of this test

    # with other steps, these two spacings are uneven: see the next test
    for steps in {"leading": (1, 2, 7, 25, 33, 50), "linspace": (50,), "trailing": (1, 2, 25, 50)}[spacing]:
        scheduler = diffusers.DDIMScheduler(**betas_of(schedule), clip_sample=True, timestep_spacing=spacing)

        result = sample(clipping, MEL, NOISE, DDIM(NoiseSchedule.named(schedule, STEPS), steps, eta, spacing))

        np.testing.assert_allclose(result, run_scheduler(scheduler, steps, eta=eta), rtol=0, atol=ATOL)


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
@pytest.mark.parametrize("steps", [7, 20, 33])
def test_every_step_goes_to_the_next_timestep_where_they_are_uneven(spacing: str, steps: int) -> None:
    """diffusers' own scheduler goes to t - T // steps, where no step begins (its issue 9261)."""
    diffusers = pytest.importorskip("diffusers")

    class Repaired(diffusers.DDIMScheduler):  # type: ignore[misc, name-defined]
        def step(self, model_output: Array, timestep: int, *arguments: Any, **options: Any) -> Any:
            following = next((int(t) for t in self.timesteps if t < timestep), int(timestep) - STEPS)
            self.num_inference_steps = Fraction(STEPS, int(timestep) - following)  # only the distance depends on it
            return super().step(model_output, timestep, *arguments, **options)

    scheduler = Repaired(**betas_of("linear"), clip_sample=True, timestep_spacing=spacing)

    result = sample(clipping, MEL, NOISE, DDIM(LINEAR, steps, 0.4, spacing))

    np.testing.assert_allclose(result, run_scheduler(scheduler, steps, eta=0.4), rtol=0, atol=ATOL)


def test_all_steps_with_eta_1_are_ddpm() -> None:
    """If nothing is clipped: clipping leaves other noise to the two."""
    by_ddim = sample(timid, MEL, NOISE, DDIM(LINEAR, STEPS, eta=1))

    np.testing.assert_allclose(by_ddim, sample(timid, MEL, NOISE, DDPM(LINEAR)), rtol=0, atol=1e-4)


TIMESTEPS = [49, 40, 12, 3]


def test_explicit_timesteps_without_fresh_noise_equal_a_solver_of_first_order() -> None:
    pytest.importorskip("diffusers")
    from diffusers import DPMSolverMultistepScheduler  # its DDIMScheduler takes no explicit timesteps

    scheduler = DPMSolverMultistepScheduler(**betas_of("linear"), thresholding=True, solver_order=1)
    expected = run_scheduler(scheduler, TIMESTEPS)

    def denoise(x: Array, timestep: Array, mel: Array) -> Array:
        """As `clipping`, but with the noise that is left when the signal is clipped."""
        alpha_bar = float(LINEAR.alphas_cumprod[int(timestep[0])])
        x0 = predicted_signal(x, clipping(x, timestep, mel), alpha_bar).astype(np.float64)
        return np.asarray((x - np.sqrt(alpha_bar) * x0) / np.sqrt(1 - alpha_bar), dtype=np.float32)

    result = sample(denoise, MEL, NOISE, DDIM(LINEAR, TIMESTEPS))

    np.testing.assert_allclose(result, expected, rtol=0, atol=ATOL)


def test_explicit_timesteps_with_eta_1_are_diffusers_ddpm() -> None:
    """If nothing is clipped; see below."""
    pytest.importorskip("diffusers")
    import torch
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(**betas_of("linear"), clip_sample=False)
    scheduler.set_timesteps(timesteps=TIMESTEPS)
    x = torch.from_numpy(NOISE(0))
    draws = [torch.from_numpy(NOISE(draw)) for draw in range(1, len(TIMESTEPS) + 1)]
    with unittest.mock.patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", side_effect=draws):
        for t in TIMESTEPS:
            x = scheduler.step(torch.from_numpy(timid(x.numpy(), np.array([t, t]), MEL)), t, x).prev_sample

    result = sample(timid, MEL, NOISE, DDIM(LINEAR, TIMESTEPS, eta=1))

    np.testing.assert_allclose(result, x.numpy(), rtol=0, atol=ATOL)


def test_explicit_timesteps_of_a_divisor_are_the_spacing_trailing() -> None:
    by_number = sample(clipping, MEL, NOISE, DDIM(LINEAR, 5, eta=0.5))

    np.testing.assert_array_equal(
        sample(clipping, MEL, NOISE, ddim.make(LINEAR, eta=0.5, timesteps=[49, 39, 29, 19, 9])), by_number
    )


@pytest.mark.parametrize(("timesteps", "steps"), [(10, 10), (24, 24), (26, 25), (50, 25)])
def test_the_default_is_25_steps_or_all_that_the_model_has(timesteps: int, steps: int) -> None:
    assert len(ddim.make(NoiseSchedule.linear(timesteps)).timesteps) == steps


def test_the_default_has_no_fresh_noise() -> None:
    assert ddim.make(LINEAR).eta == 0
    assert ddim.make(LINEAR, 10, 0.5).eta == 0.5


def test_an_unknown_spacing() -> None:
    with pytest.raises(ValueError, match="spacing 'even': expected leading, linspace or trailing"):
        DDIM(LINEAR, 10, spacing="even")
