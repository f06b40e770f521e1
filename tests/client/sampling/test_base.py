import numpy as np
import pytest

from gomin_client.sampling.base import Array, sample, sample_steps
from gomin_client.sampling.ddpm import DDPM
from gomin_client.sampling.noise import NoiseField
from gomin_client.sampling.registry import SAMPLERS, make_sampler
from gomin_client.sampling.schedules import NoiseSchedule
from tests.client.sampling.denoisers import LINEAR, MEL, NOISE, STEPS, clipping


def test_steps_start_with_the_noise_and_draw_once_a_step() -> None:
    drawn = []

    def noise(draw: int) -> Array:
        drawn.append(draw)
        return np.zeros((2, 1, 4), np.float32)

    def denoise(x: Array, timestep: Array, mel: Array) -> Array:
        return x

    steps = list(sample_steps(denoise, np.zeros((2, 3, 1), np.float32), noise, DDPM(NoiseSchedule.linear(5))))

    assert len(steps) == 6
    assert drawn == [0, 1, 2, 3, 4]  # the last step adds none


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_finds_the_signal_of_a_perfect_denoiser(name: str) -> None:
    signal = np.sin(np.arange(768, dtype=np.float32) / 10)[np.newaxis, np.newaxis] * 0.9

    def perfect(x: Array, timestep: Array, mel: Array) -> Array:
        level = np.interp(timestep[0], np.arange(STEPS), np.sqrt(LINEAR.alphas_cumprod))
        return np.asarray((x - level * signal) / np.sqrt(1 - level**2), dtype=np.float32)

    steps = 10 if name not in ("ddpm", "fast") else None
    result = sample(perfect, MEL, NOISE, make_sampler(name, LINEAR, steps))

    np.testing.assert_allclose(result, np.broadcast_to(signal, result.shape), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_items_result_does_not_depend_on_the_batch(name: str) -> None:
    sampler = make_sampler(name, LINEAR, eta=1.0 if name == "ddim" else None)

    batch = sample(clipping, MEL, NOISE, sampler)
    alone = sample(clipping, MEL[1:], NoiseField([8], 768), sampler)

    np.testing.assert_array_equal(batch[1:], alone)
    assert batch.dtype == np.float32
    assert np.abs(batch).max() <= 1 + 1e-6
