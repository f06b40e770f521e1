import numpy as np
import pytest
import torch

from gomin_client.sampling import ddpm
from gomin_client.sampling.base import Array, sample
from gomin_client.sampling.ddpm import DDPM
from gomin_client.sampling.noise import NoiseField
from gomin_client.sampling.schedules import NoiseSchedule
from gomin_export.networks import DiffusionWrapper
from tests.support import golden


def test_a_perfect_denoiser_finds_the_signal() -> None:
    """With a denoiser that knows the signal, every step's x₀ is that signal, and the last step returns it."""
    schedule = NoiseSchedule.linear(50)
    signal = np.sin(np.arange(512, dtype=np.float32) / 10)[np.newaxis, np.newaxis] * 0.9
    seen = []

    def denoise(x: Array, timestep: Array, mel: Array) -> Array:
        seen.append(timestep[0])
        alpha_bar = schedule.alphas_cumprod[int(timestep[0])]
        return (x - np.sqrt(alpha_bar) * signal) / np.sqrt(1 - alpha_bar)

    result = sample(denoise, np.zeros((1, 4, 2), np.float32), NoiseField([0], 512), DDPM(schedule))

    assert seen == list(range(49, -1, -1))
    np.testing.assert_allclose(result, signal, rtol=0, atol=1e-5)


def test_it_clips_the_predicted_signal() -> None:
    def denoise(x: Array, timestep: Array, mel: Array) -> Array:
        return np.full_like(x, -100)

    result = sample(denoise, np.zeros((1, 4, 1), np.float32), NoiseField([0], 256), DDPM(NoiseSchedule.linear(50)))

    np.testing.assert_allclose(result, 1, rtol=0, atol=1e-6)


def test_the_released_chain_equals_the_original(small_diffusion: DiffusionWrapper) -> None:
    vectors = golden("diffusion_small_io.npz")
    draws = vectors["chain_draws"]

    audio = small_diffusion(
        torch.from_numpy(vectors["chain_mel"]),
        noise=lambda draw: draws[draw][np.newaxis],
        sampler=ddpm.make(NoiseSchedule.linear(50)),
    )

    np.testing.assert_allclose(audio.numpy(), vectors["chain_audio"], rtol=0, atol=1e-5)


def test_it_takes_all_steps() -> None:
    assert ddpm.make(NoiseSchedule.linear(5), 5).timesteps == (4, 3, 2, 1, 0)
    with pytest.raises(ValueError, match=r"steps 20: sampler ddpm takes 50; take a sampler with any number of steps"):
        ddpm.make(NoiseSchedule.linear(50), 20)
