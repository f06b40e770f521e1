"""Samplers and noise schedules against diffusers, and by what their papers say of them."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from gomin_client.contract import choices
from gomin_client.contract import model as contract
from gomin_client.sampling import chains
from gomin_client.sampling.chains import (
    DDIM,
    DDPM,
    FAST_BETAS,
    SAMPLERS,
    SCHEDULES,
    Array,
    DPMSolver,
    NoiseField,
    NoiseSchedule,
    Sampler,
    SamplerSettings,
    make_sampler,
    sample,
)
from gomin_export.networks import DiffusionWrapper
from tests.support import golden

STEPS = 50  # that the released model was trained with
ATOL = 1e-5
MEL = np.zeros((2, 4, 3), np.float32)
NOISE = NoiseField([7, 8], 768)
LINEAR = NoiseSchedule.linear(STEPS)


def denoise(x: Array, timestep: Array, mel: Array) -> Array:
    """Not linear, and so wrong that the predicted signal is clipped in places."""
    wave = np.sin(0.02 * np.arange(x.shape[-1], dtype=np.float32))
    return np.tanh(1.5 * x + 0.02 * timestep[:, None, None]) - 0.3 * wave


def timid(x: Array, timestep: Array, mel: Array) -> Array:
    """Predicts signals within ±0.5, so that nothing is clipped."""
    level = np.interp(timestep[0], np.arange(STEPS), np.sqrt(LINEAR.alphas_cumprod))
    return np.asarray((x - level * 0.5 * np.tanh(x)) / np.sqrt(1 - level**2), dtype=np.float32)


def by_diffusers(scheduler: Any, steps: int, **options: Any) -> Array:
    """The chain of a scheduler; in float64 where it would magnify the last bits of float32 a thousand times."""
    dtype = torch.float32 if scheduler.alphas_cumprod[-1] > 0.1 else torch.float64
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(dtype)
    scheduler.set_timesteps(steps)
    if isinstance(scheduler, DPMSolverMultistepScheduler) and dtype == torch.float64:
        alphas_cumprod = scheduler.alphas_cumprod[scheduler.timesteps]
        scheduler.sigmas = torch.cat([((1 - alphas_cumprod) / alphas_cumprod).sqrt(), torch.zeros(1)])
    x = torch.from_numpy(NOISE(0)).to(dtype)
    for draw, t in enumerate(scheduler.timesteps[:steps], start=1):
        predicted = torch.from_numpy(denoise(x.float().numpy(), np.full(len(x), int(t), np.float32), MEL))
        if "eta" in options:
            options["variance_noise"] = torch.from_numpy(NOISE(draw))
        x = scheduler.step(predicted.to(dtype), t, x, **options).prev_sample
    return x.numpy()


def betas_of(schedule: str) -> dict[str, Any]:
    """The arguments that give diffusers' schedulers the betas of one of ours."""
    if schedule == "linear":
        return {"num_train_timesteps": STEPS, "beta_start": 1e-4, "beta_end": 0.05}
    if schedule == "cosine":
        return {"num_train_timesteps": STEPS, "beta_schedule": "squaredcos_cap_v2"}
    linear = np.cumprod(1 - np.linspace(1e-4, 0.05, STEPS))
    u = (np.arange(STEPS + 1) / STEPS + 0.008) / 1.008
    cosine = np.cos(u * np.pi / 2)[1:] ** 2 / np.cos(u[0] * np.pi / 2) ** 2
    weight = np.arange(STEPS) / (STEPS - 1)
    alphas_cumprod = (1 - weight) * linear + weight * cosine
    betas = 1 - alphas_cumprod / np.append(1, alphas_cumprod[:-1])
    return {"num_train_timesteps": STEPS, "trained_betas": np.minimum(betas, 0.999)}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_equals_diffusers(schedule: str, spacing: str, eta: float) -> None:
    for steps in (1, 2, 7, 25, 33, 50):
        scheduler = DDIMScheduler(**betas_of(schedule), clip_sample=True, timestep_spacing=spacing)

        result = sample(denoise, MEL, NOISE, DDIM(NoiseSchedule.named(schedule, STEPS), steps, eta, spacing))

        np.testing.assert_allclose(result, by_diffusers(scheduler, steps, eta=eta), rtol=0, atol=ATOL)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_dpm_solver_equals_diffusers(schedule: str, spacing: str) -> None:
    for steps in (1, 2, 3, 14, 20, 49):
        scheduler = DPMSolverMultistepScheduler(**betas_of(schedule), thresholding=True, timestep_spacing=spacing)

        result = sample(denoise, MEL, NOISE, DPMSolver(NoiseSchedule.named(schedule, STEPS), steps, spacing))

        np.testing.assert_allclose(result, by_diffusers(scheduler, steps), rtol=0, atol=ATOL)


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_timesteps_that_repeat_are_refused(spacing: str) -> None:
    with pytest.raises(ValueError, match="timesteps repeat; take fewer, or 'trailing'"):
        DPMSolver(LINEAR, STEPS, spacing)


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_any_number_of_steps_keeps_to_the_models_timesteps(name: str) -> None:
    for total in (1, 6, 50, 200):
        for steps in range(1, total + 1):
            timesteps = make_sampler(name, "linear", steps, None, total).timesteps
            assert len(timesteps) == steps
            assert timesteps[0] == total - 1
            assert timesteps[-1] >= 0
            assert (np.diff(timesteps) < 0).all()


def test_fast_sampling_matches_levels_of_noise() -> None:
    """Each fractional timestep interpolates √ᾱ between its neighbours, as DiffWave's appendix defines it."""
    sampler = DDPM.fast(LINEAR)

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


def test_fast_sampling_is_the_papers_chain() -> None:
    """Where nothing is clipped: Kong et al. 2020, algorithm 2, with eq. 8's variance."""
    betas = np.array(FAST_BETAS)
    alphas_cumprod = np.cumprod(1 - betas)

    x = NOISE(0).astype(np.float64)
    sampler = DDPM.fast(LINEAR)
    for draw, (s, timestep) in enumerate(zip(range(5, -1, -1), sampler.timesteps, strict=True), start=1):
        epsilon = timid(x.astype(np.float32), np.array([timestep], np.float32), MEL)
        x = (x - betas[s] / np.sqrt(1 - alphas_cumprod[s]) * epsilon) / np.sqrt(1 - betas[s])
        if s > 0:
            x = x + np.sqrt((1 - alphas_cumprod[s - 1]) / (1 - alphas_cumprod[s]) * betas[s]) * NOISE(draw)

    np.testing.assert_allclose(sample(timid, MEL, NOISE, sampler), x, rtol=0, atol=1e-4)


def test_fast_sampling_of_a_model_that_has_seen_less_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="begins with more noise"):
        make_sampler("fast", "linear", None, None, 20)


def test_all_samplers_find_the_signal_of_a_perfect_denoiser() -> None:
    signal = np.sin(np.arange(768, dtype=np.float32) / 10)[np.newaxis, np.newaxis] * 0.9

    def perfect(x: Array, timestep: Array, mel: Array) -> Array:
        level = np.interp(timestep[0], np.arange(STEPS), np.sqrt(LINEAR.alphas_cumprod))
        return np.asarray((x - level * signal) / np.sqrt(1 - level**2), dtype=np.float32)

    for name in SAMPLERS:
        steps = 10 if name in ("ddim", "dpm++") else None
        result = sample(perfect, MEL, NOISE, make_sampler(name, "linear", steps, None, STEPS))
        np.testing.assert_allclose(result, np.broadcast_to(signal, result.shape), rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_items_result_does_not_depend_on_the_batch(name: str) -> None:
    sampler = make_sampler(name, "linear", None, 1.0 if name == "ddim" else None, STEPS)

    batch = sample(denoise, MEL, NOISE, sampler)
    alone = sample(denoise, MEL[1:], NoiseField([8], 768), sampler)

    np.testing.assert_array_equal(batch[1:], alone)
    assert batch.dtype == np.float32
    assert np.abs(batch).max() <= 1 + 1e-6


def test_ddim_with_all_steps_and_eta_1_is_ddpm() -> None:
    """Where nothing is clipped: clipping leaves other noise to the two."""
    by_ddim = sample(timid, MEL, NOISE, DDIM(LINEAR, STEPS, eta=1))

    np.testing.assert_allclose(by_ddim, sample(timid, MEL, NOISE, DDPM(LINEAR)), rtol=0, atol=1e-4)


def test_the_released_chain_equals_the_original(small_diffusion: DiffusionWrapper) -> None:
    vectors = golden("diffusion_small_io.npz")
    draws = vectors["chain_draws"]

    audio = small_diffusion(
        torch.from_numpy(vectors["chain_mel"]),
        noise=lambda draw: draws[draw][np.newaxis],
        sampler=make_sampler("ddpm", "linear", None, None, STEPS),
    )

    np.testing.assert_allclose(audio.numpy(), vectors["chain_audio"], rtol=0, atol=ATOL)


class TestSchedules:
    @pytest.mark.parametrize("name", SCHEDULES)
    @pytest.mark.parametrize("total", [1, 2, 6, 50, 1000])
    def test_noise_only_rises(self, name: str, total: int) -> None:
        alphas_cumprod = NoiseSchedule.named(name, total).alphas_cumprod

        assert alphas_cumprod.shape == (total,)
        assert alphas_cumprod.dtype == np.float32
        assert (np.diff(alphas_cumprod) < 0).all()
        assert alphas_cumprod[-1] > 0
        assert alphas_cumprod[0] < 1

    def test_cosine_equals_diffusers(self) -> None:
        scheduler = DDIMScheduler(num_train_timesteps=STEPS, beta_schedule="squaredcos_cap_v2")

        np.testing.assert_allclose(
            NoiseSchedule.cosine(STEPS).alphas_cumprod, scheduler.alphas_cumprod.numpy(), rtol=1e-5, atol=1e-7
        )

    def test_interpolated_goes_from_linear_to_cosine(self) -> None:
        linear, cosine, between = (NoiseSchedule.named(name, STEPS).alphas_cumprod for name in SCHEDULES)

        assert between[0] == pytest.approx(linear[0], abs=1e-6)
        assert abs(between[2] - linear[2]) < 0.1 * abs(cosine[2] - linear[2])
        assert abs(between[-3] - cosine[-3]) < 0.1 * abs(cosine[-3] - linear[-3])
        assert between[-1] < 1e-4
        np.testing.assert_array_less(np.minimum(linear, cosine)[1:-1], between[1:-1])
        np.testing.assert_array_less(between[1:-1], np.maximum(linear, cosine)[1:-1])

    def test_by_betas(self) -> None:
        schedule = NoiseSchedule.from_betas([0.1, 0.2])

        np.testing.assert_allclose(schedule.alphas_cumprod, [0.9, 0.72], rtol=1e-6)
        assert make_sampler("ddim", schedule, 2, None, 2).timesteps == (1, 0)

    @pytest.mark.parametrize("betas", [[], [0.1, 0], [1.0], [float("nan")], [[0.1]]])
    def test_betas_out_of_range(self, betas: Sequence[float]) -> None:
        with pytest.raises(ValueError, match="betas"):
            NoiseSchedule.from_betas(betas)

    @pytest.mark.parametrize("name", SCHEDULES)
    def test_every_sampler_ends_finite(self, name: str) -> None:
        for sampler in SAMPLERS:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                result = sample(denoise, MEL, NOISE, make_sampler(sampler, name, None, None, STEPS))
            assert np.isfinite(result).all()


class TestSettings:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("euler", "linear", None, None), "sampler 'euler': expected ddpm, fast, ddim or dpm"),
            (("ddpm", "sigmoid", None, None), "schedule 'sigmoid': expected linear, cosine or interpolated"),
            (("ddpm", "linear", 20, None), r"steps 20: sampler ddpm takes 50; ddim and dpm\+\+ take as many"),
            (("fast", "linear", 50, None), "sampler fast takes 6"),
            (("dpm++", "linear", 51, None), "steps 51: expected 1 to 50"),
            (("ddim", "linear", 0, None), "steps 0: expected 1 to 50"),
            (("ddpm", "linear", None, 0.0), "eta 0: only sampler ddim has an eta"),
            (("ddim", "linear", 10, 1.5), "eta 1.5: expected a number from 0"),
            (("ddim", "linear", 10, float("nan")), "eta nan"),
            (("ddim", NoiseSchedule.linear(10), 10, None), "schedule of 10 timesteps: the model has 50"),
        ],
    )
    def test_what_makes_no_sense_is_told(self, arguments: tuple[Any, ...], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            make_sampler(*arguments, STEPS)

    @pytest.mark.parametrize("sampler_class", [DDIM, DPMSolver])
    def test_an_unknown_spacing(self, sampler_class: Any) -> None:
        with pytest.raises(ValueError, match="spacing 'even': expected leading, linspace or trailing"):
            sampler_class(LINEAR, 10, spacing="even")

    def test_another_sampler_brings_its_own_steps_and_keeps_the_schedule(self) -> None:
        settings = SamplerSettings.from_config(
            {"gomin.sampler": "ddim", "gomin.steps": "10", "gomin.eta": "0.5", "gomin.schedule": "cosine"}
        )

        assert settings == SamplerSettings("ddim", 10, "cosine", 0.5)
        assert settings.updated({"sampler": "dpm++"}) == SamplerSettings("dpm++", None, "cosine")
        assert settings.updated({"sampler": "ddim"}) == settings
        assert settings.updated({"eta": 1}).to_parameters() == {
            "sampler": "ddim",
            "steps": 10,
            "schedule": "cosine",
            "eta": 1,
        }

    @pytest.mark.parametrize(
        ("parameters", "words"),
        [
            ({"step": 3}, "unknown request parameter 'step': expected sampler, steps, schedule or eta"),
            ({"steps": "3"}, "steps '3': expected a whole number"),
            ({"steps": True}, "steps True"),
            ({"steps": 3.0}, "steps 3.0"),
            ({"eta": "much"}, "eta 'much': expected a number"),
            ({"sampler": 3}, "sampler 3: expected a name"),
        ],
    )
    def test_parameters_of_the_wrong_kind(self, parameters: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            SamplerSettings().updated(parameters)

    def test_a_config_that_is_no_number(self) -> None:
        with pytest.raises(ValueError, match=r"gomin\.steps is 'few'"):
            SamplerSettings.from_config({"gomin.steps": "few"})

    def test_names_that_options_list_are_the_samplers_own(self) -> None:
        assert chains.PARAMETER_PREFIX == contract.PARAMETER_PREFIX
        assert choices.SAMPLERS == SAMPLERS
        assert tuple(SCHEDULES) == choices.SCHEDULES
        assert tuple(SamplerSettings.__dataclass_fields__) == choices.SAMPLER_PARAMETERS

    @pytest.mark.parametrize("name", SAMPLERS)
    def test_protocol(self, name: str) -> None:
        sampler: Sampler = make_sampler(name, "linear", None, None, STEPS)

        assert len(sampler.timesteps) == {"ddpm": 50, "fast": 6, "ddim": 25, "dpm++": 20}[name]
        assert all(0 <= timestep <= STEPS - 1 for timestep in sampler.timesteps)
