"""web/sampling/chain.js, tiling.js and the samplers make the signals of the Python package."""

from functools import partial

import numpy as np

from gomin_client.sampling.base import Array
from gomin_client.sampling.jobs import DiffusionModel, sample_jobs
from gomin_client.sampling.registry import SAMPLERS, SCHEDULES
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.sampling.tiling import Tiling
from tests.gateway.sampling.cases import CASES, Case
from tests.gateway.sampling.conftest import Answers, array, asked

TOLERANCE = 1e-6


def toy_denoiser(hop: int, signal: Array, timestep: Array, mel: Array) -> Array:
    """Arithmetic in float32 with a halo of one frame, as twin.mjs has it: signal (B, 1, N), timestep (B,)."""
    padded = np.pad(signal, ((0, 0), (0, 0), (hop, hop)))
    near = np.float32(0.25) * (padded[..., : -2 * hop] - padded[..., 2 * hop :])
    gain = (1 + np.float32(0.001) * timestep)[:, None, None]
    return gain * signal + near + mel.repeat(hop, axis=-1)


def python_chain(case: Case) -> Array:
    tiling = Tiling(case["hop"], halo_frames=1, tile_frames=case["most"])
    model = DiffusionModel(case["numSteps"], tiling, SamplerSettings.from_parameters(case["usual"]))
    mel = np.array(case["mel"], dtype=np.float32)[None, None]
    job = model.job(mel, np.array([[int(case["seed"])]], dtype=object), np.array([[case["first"]]]), case["given"])
    [signal] = sample_jobs(partial(toy_denoiser, case["hop"]), [job], tiling)
    assert signal is not None
    return signal[0, 0]


def test_chains(answers: Answers) -> None:
    for case, answer in answers["chain"]:
        made = asked(python_chain, case)
        if "error" in made:
            assert answer == made
            continue
        signal = array(answer, np.float32)

        assert np.mean(np.abs(signal) < 1) > 0.1  # not merely clipped
        np.testing.assert_allclose(signal, made["value"], rtol=0, atol=TOLERANCE, err_msg=str(case["given"]))


def test_the_cases_have_every_sampler_and_schedule() -> None:
    assert {case["given"].get("sampler", "ddpm") for case in CASES["chain"]} == set(SAMPLERS)
    assert {case["given"].get("schedule", "linear") for case in CASES["chain"]} == set(SCHEDULES)


def test_tiles(answers: Answers) -> None:
    for case, answer in answers["tiles"]:
        assert answer == asked(python_tiles, case)


def python_tiles(case: Case) -> list[list[int]]:
    return [list(tile) for tile in Tiling(case["hop"], case["halo"], case["most"]).tiles(case["frames"])]


def test_progress_and_cancellation(answers: Answers) -> None:
    whole = {"calls": 4, "log": [[done, 4] for done in range(1, 5)], "end": "done"}
    assert [answer["value"] for _, answer in answers["progress"]] == [
        whole,
        {"calls": 2, "log": whole["log"][:2], "end": "aborted"},
        {"calls": 0, "log": [], "end": "aborted"},
        {"calls": 1, "log": [], "end": "the denoiser answered with 9 samples; expected 10"},
    ]
