"""Chains that run side by side, in tiles: which share a denoiser call, with results that do not depend on it."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from gomin_client.sampling import registry
from gomin_client.sampling.base import Array, sample
from gomin_client.sampling.ddim import DDIM
from gomin_client.sampling.ddpm import DDPM
from gomin_client.sampling.dpm_solver import DPMSolver
from gomin_client.sampling.jobs import DiffusionModel, SamplingJob, sample_jobs, side_by_side
from gomin_client.sampling.noise import NoiseField
from gomin_client.sampling.schedules import NoiseSchedule
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.sampling.tiling import Tiling

HOP = 4
HALO = 3
SCHEDULE = NoiseSchedule.linear(10)
SAMPLERS = [DDPM(SCHEDULE), DDIM(SCHEDULE, 5, eta=0.5), DPMSolver(SCHEDULE, 3)]


class Denoiser:
    """Sees exactly HALO frames to either side, zeros beyond the ends, and notes what it is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []  # items, frames
        self.timesteps: list[list[float]] = []

    def __call__(self, signal: Array, timestep: Array, mel: Array) -> Array:
        self.calls.append((len(mel), mel.shape[-1]))
        self.timesteps.append(timestep.tolist())
        frames = signal.reshape(len(mel), -1, HOP).sum(axis=-1) + mel.sum(axis=1)
        padded = np.pad(frames, ((0, 0), (HALO, HALO)))
        around = np.lib.stride_tricks.sliding_window_view(padded, 2 * HALO + 1, axis=1).sum(axis=-1)
        wide = np.repeat(around, HOP, axis=1)[:, np.newaxis]
        return np.asarray(np.tanh(signal + 0.1 * wide + 0.1 * timestep[:, None, None]), dtype=np.float32)


def job(frames: int, seed: int, sampler: int = 0, items: int = 1) -> SamplingJob:
    mel = np.random.default_rng(seed).uniform(0, 1, (items, 2, frames)).astype(np.float32)
    return SamplingJob(mel, NoiseField([seed] * items, HOP * frames), SAMPLERS[sampler])


def untiled(job: SamplingJob) -> Array:
    return sample(Denoiser(), job.mel, job.noise, job.sampler)


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 33, 60])
@pytest.mark.parametrize("sampler", [0, 1, 2])
def test_tiles_are_exact(frames: int, sampler: int) -> None:
    asked = job(frames, seed=frames, sampler=sampler, items=2)
    denoiser = Denoiser()

    (tiled,) = sample_jobs(denoiser, [asked], Tiling(HOP, HALO, 8, max_items=16))

    assert tiled is not None
    np.testing.assert_allclose(tiled, untiled(asked), rtol=0, atol=1e-5)
    assert max(items * frames for items, frames in denoiser.calls) <= 8


def test_jobs_of_any_samplers_share_calls_and_get_what_they_would_alone() -> None:
    jobs = [job(5, 1, sampler=0), job(5, 2, sampler=1, items=2), job(5, 3, sampler=2), job(30, 4, sampler=2)]
    denoiser = Denoiser()

    results = sample_jobs(denoiser, jobs, Tiling(HOP, HALO, 20, max_items=4))

    for asked, result in zip(jobs, results, strict=True):
        assert result is not None
        np.testing.assert_allclose(result, untiled(asked), rtol=0, atol=1e-5)
    assert denoiser.calls[:2] == [(4, 5), (1, 20)]  # the first three together; the fourth in tiles
    assert denoiser.timesteps[0] == [9, 9, 9, 9]
    assert denoiser.timesteps[3] == [8, 7, 7, 6]  # each at its own timestep
    assert denoiser.calls[-1] == (1, 5)  # the longest chain ends alone


@pytest.mark.parametrize(("max_items", "tile", "calls"), [(2, 20, [2, 2, 1]), (9, 10, [2, 2, 1]), (9, 4, [1] * 5)])
def test_calls_hold_no_more_than_they_may(max_items: int, tile: int, calls: list[int]) -> None:
    denoiser = Denoiser()
    tiling = Tiling(HOP, 1, tile, max_items)

    sample_jobs(denoiser, [job(4, 1, sampler=2, items=5)], tiling)

    assert [items for items, _ in denoiser.calls] == calls * 3


def test_a_cancelled_job_stops_before_the_next_call() -> None:
    denoiser = Denoiser()
    gone = SamplingJob(
        *(getattr(job(30, 1), name) for name in ("mel", "noise", "sampler")), lambda: len(denoiser.calls) >= 1
    )
    stays = job(5, 2)

    results = sample_jobs(denoiser, [gone, stays], Tiling(HOP, HALO, 20))

    assert results[0] is None
    np.testing.assert_array_equal(results[1], untiled(stays))
    assert [frames for _, frames in denoiser.calls].count(20) == 1  # of two tiles


CONFIG = {"gomin.hop_length": "4", "gomin.halo_frames": "3", "gomin.num_diffusion_steps": "10"}


def test_each_step_is_reported_and_a_short_chain_ends_before_a_long_one() -> None:
    reported: list[tuple[int, int]] = []
    last: dict[int, Array] = {}

    def on_step(index: int, step: int, signal: Array) -> None:
        reported.append((index, step))
        last[index] = signal

    jobs = [replace(job(9, 1, sampler), on_step=partial(on_step, sampler)) for sampler in range(3)]

    results = sample_jobs(Denoiser(), jobs, Tiling(HOP, HALO, 64, max_items=4))

    steps = [len(sampler.timesteps) for sampler in SAMPLERS]
    expected = [(index, step) for step in range(1, 11) for index in range(3) if step <= steps[index]]
    assert reported == expected
    for index, result in enumerate(results):
        assert result is not None
        np.testing.assert_array_equal(last[index], result)


def _keep(seen: list[Array], _: int, signal: Array) -> None:
    seen.append(signal)


def test_what_a_step_predicts_is_the_signal_of_a_perfect_denoiser() -> None:
    """Before the last step, too, for every sampler."""
    signal = np.random.default_rng(5).uniform(-0.9, 0.9, (1, 1, HOP * 4)).astype(np.float32)
    for name in registry.SAMPLERS:
        sampler = registry.make_sampler(name, NoiseSchedule.linear(50))
        levels = dict(zip(sampler.timesteps, sampler.alphas_cumprod, strict=True))
        seen: list[Array] = []

        def noise_in(x: Array, timestep: Array, _: Array, levels: dict[float, float] = levels) -> Array:
            level = levels[min(levels, key=lambda known: abs(known - timestep[0]))]
            return np.asarray((x - math.sqrt(level) * signal) / math.sqrt(1 - level), np.float32)

        asked = SamplingJob(
            np.zeros((1, 2, 4), np.float32), NoiseField([1], HOP * 4), sampler, on_step=partial(_keep, seen)
        )
        sample_jobs(noise_in, [asked], Tiling(HOP, HALO, 64))

        assert len(seen) == len(sampler.timesteps)
        for predicted in seen:
            np.testing.assert_allclose(predicted, signal, rtol=0, atol=2e-3, err_msg=name)


def test_requests_run_side_by_side_up_to_the_bound_of_one() -> None:
    frames = {0: 6, 3: 4, 4: 1, 7: 10, 8: 3}

    assert side_by_side(frames, 10) == [[0, 3], [4], [7], [8]]
    assert side_by_side(frames, None) == [[0, 3, 4, 7, 8]]
    assert side_by_side({}, 10) == []


class TestDiffusionModel:
    def test_older_configs_have_the_released_chain(self) -> None:
        model = DiffusionModel.from_config(CONFIG, 16)

        assert model.defaults == SamplerSettings()
        assert model.tiling == Tiling(4, 3, 512, 16)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"gomin.hop_length": "four"}, r"gomin\.hop_length is 'four': not a whole number"),
            ({"gomin.sampler": "euler"}, "sampler 'euler'"),
            ({"gomin.steps": "9"}, "sampler ddpm takes 10"),
            ({"gomin.tile_frames": "6"}, "tiles of 6 frames"),
        ],
    )
    def test_a_config_that_makes_no_sense(self, change: dict[str, str], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            DiffusionModel.from_config({**CONFIG, **change}, 16)

    def test_a_request_of_too_many_frames_is_refused(self) -> None:
        model = DiffusionModel.from_config({**CONFIG, "gomin.max_frames": "10"}, 16)
        seeds = np.zeros((2, 1), np.uint64)

        model.job(np.zeros((2, 2, 5), np.float32), seeds, None, {})
        with pytest.raises(ValueError, match="at most 10 frames in one request, this one has 2 × 6"):
            model.job(np.zeros((2, 2, 6), np.float32), seeds, None, {})

    @pytest.mark.parametrize(
        ("mel", "words"),
        [(np.zeros((1, 2, 0), np.float32), "no frames"), (np.full((1, 2, 3), np.inf, np.float32), "NaN or infinite")],
    )
    def test_mels_that_cannot_be_sampled(self, mel: Array, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            DiffusionModel.from_config(CONFIG, 16).job(mel, np.zeros((1, 1), np.uint64), None, {})
