import numpy as np
import pytest

from gomin_client.sampling import fast
from gomin_client.sampling.base import sample
from gomin_client.sampling.fast import FAST_BETAS, FastDDPM
from gomin_client.sampling.schedules import NoiseSchedule
from tests.client.sampling.denoisers import LINEAR, MEL, NOISE, timid


def test_timesteps_match_levels_of_noise() -> None:
    """Each fractional timestep interpolates √ᾱ between its neighbours, as DiffWave's appendix defines it."""
    sampler = FastDDPM(LINEAR)

    own = np.sqrt(NoiseSchedule.from_betas(FAST_BETAS).alphas_cumprod[::-1])
    levels = np.sqrt(LINEAR.alphas_cumprod)
    for timestep, level in zip(sampler.timesteps, own, strict=True):
        low, high = int(np.floor(timestep)), int(np.ceil(timestep))
        between = levels[low] + (timestep - low) * (levels[high] - levels[low])
        assert between == pytest.approx(level, abs=1e-6)
    assert sampler.timesteps[-1] == 0  # its first beta is the trained one
    assert 40 < sampler.timesteps[0] < 49
    assert (np.diff(sampler.timesteps) < 0).all()
    assert any(timestep % 1 for timestep in sampler.timesteps)


def test_it_is_the_papers_chain() -> None:
    """If nothing is clipped: Kong et al. 2020, algorithm 2, with eq. 8's variance."""
    betas = np.array(FAST_BETAS)
    alphas_cumprod = np.cumprod(1 - betas)

    x = NOISE(0).astype(np.float64)
    sampler = FastDDPM(LINEAR)
    for draw, (s, timestep) in enumerate(zip(range(5, -1, -1), sampler.timesteps, strict=True), start=1):
        epsilon = timid(x.astype(np.float32), np.array([timestep], np.float32), MEL)
        x = (x - betas[s] / np.sqrt(1 - alphas_cumprod[s]) * epsilon) / np.sqrt(1 - betas[s])
        if s > 0:
            x = x + np.sqrt((1 - alphas_cumprod[s - 1]) / (1 - alphas_cumprod[s]) * betas[s]) * NOISE(draw)

    np.testing.assert_allclose(sample(timid, MEL, NOISE, sampler), x, rtol=0, atol=1e-4)


def test_a_model_that_has_seen_less_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="begins with more noise"):
        fast.make(NoiseSchedule.linear(20))


def test_it_takes_six_steps() -> None:
    assert len(fast.make(LINEAR, 6).timesteps) == 6
    with pytest.raises(ValueError, match=r"steps 50: sampler fast takes 6; take a sampler with any number of steps"):
        fast.make(LINEAR, 50)
