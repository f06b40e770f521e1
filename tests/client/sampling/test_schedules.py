import warnings
from collections.abc import Sequence

import numpy as np
import pytest

from gomin_client.sampling.base import sample
from gomin_client.sampling.registry import SAMPLERS, SCHEDULES, make_sampler
from gomin_client.sampling.schedules import NoiseSchedule
from tests.client.sampling.denoisers import MEL, NOISE, STEPS, clipping
from tests.support import golden


def test_linear_equals_the_original() -> None:
    schedule = NoiseSchedule.linear(50)

    np.testing.assert_array_equal(schedule.alphas_cumprod, golden("schedule_linear.npz")["alphas_cumprod"])


def test_cosine_equals_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=STEPS, beta_schedule="squaredcos_cap_v2")

    np.testing.assert_allclose(
        NoiseSchedule.cosine(STEPS).alphas_cumprod, scheduler.alphas_cumprod.numpy(), rtol=1e-5, atol=1e-7
    )


def test_interpolated_goes_from_linear_to_cosine() -> None:
    linear, cosine, between = (
        NoiseSchedule.named(name, STEPS).alphas_cumprod for name in ("linear", "cosine", "interpolated")
    )

    assert between[0] == pytest.approx(linear[0], abs=1e-6)
    assert abs(between[2] - linear[2]) < 0.1 * abs(cosine[2] - linear[2])
    assert abs(between[-3] - cosine[-3]) < 0.1 * abs(cosine[-3] - linear[-3])
    assert between[-1] < 1e-4
    np.testing.assert_array_less(np.minimum(linear, cosine)[1:-1], between[1:-1])
    np.testing.assert_array_less(between[1:-1], np.maximum(linear, cosine)[1:-1])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 6, 50, 1000])
def test_noise_only_rises(name: str, total: int) -> None:
    alphas_cumprod = NoiseSchedule.named(name, total).alphas_cumprod

    assert alphas_cumprod.shape == (total,)
    assert alphas_cumprod.dtype == np.float32
    assert (np.diff(alphas_cumprod) < 0).all()
    assert alphas_cumprod[-1] > 0
    assert alphas_cumprod[0] < 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_sampler_ends_finite(name: str) -> None:
    for sampler in SAMPLERS:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = sample(clipping, MEL, NOISE, make_sampler(sampler, NoiseSchedule.named(name, STEPS)))
        assert np.isfinite(result).all()


def test_by_betas() -> None:
    schedule = NoiseSchedule.from_betas([0.1, 0.2])

    np.testing.assert_allclose(schedule.alphas_cumprod, [0.9, 0.72], rtol=1e-6)
    assert make_sampler("ddim", schedule, 2).timesteps == (1, 0)


@pytest.mark.parametrize(
    ("betas", "words"),
    [
        ([], r"betas of shape \(0,\): expected one or more, in one dimension"),
        ([[0.1]], r"betas of shape \(1, 1\)"),
        ([0.1, 0], r"betas\[1\] is 0: expected a number between 0 and 1"),
        ([1.0], r"betas\[0\] is 1:"),
        ([0.1, float("nan")], r"betas\[1\] is nan:"),
    ],
)
def test_betas_out_of_range(betas: Sequence[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NoiseSchedule.from_betas(betas)


@pytest.mark.parametrize("name", ["sigmoid", "from_betas", "named"])
def test_an_unknown_schedule(name: str) -> None:
    with pytest.raises(ValueError, match=f"schedule '{name}': expected linear, cosine or interpolated"):
        NoiseSchedule.named(name, STEPS)
