"""The diffusion model on a real Triton server, and in-process: samplers by request, tiles, shared calls, cancelling."""

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.grpc

from gomin_client.errors import ContractError, GominError
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.transports.base import Transport
from gomin_client.transports.registry import connect
from gomin_client.transports.statistics import Statistics, settled
from gomin_export import pipeline
from gomin_export.networks import DiffusionWrapper
from gomin_export.pipeline import Exported
from gomin_export.plan import ExportOptions
from gomin_export.repository.config import Deployment
from tests.export.placing import use_model
from tests.support import GOLDEN, UNPROBED, RunningServer, serving

pytestmark = pytest.mark.long

TILE = 10
FRAMES = 25  # four tiles with a halo of one frame to either side
MAX_FRAMES = 2 * FRAMES
MEL = np.random.default_rng(0).uniform(0, 1, (2, 32, FRAMES)).astype(np.float32)
SEEDS = np.array([[3], [2**64 - 1]], np.uint64)
WHOLE_CHAIN = 400  # items of the denoiser: 50 steps × 2 items × 4 tiles


@pytest.fixture(scope="module")
def tiled_repository(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small diffusion model, with tiles shorter than a mel, and a denoiser that waits for others to come."""
    home = tmp_path_factory.mktemp("tiled") / "models"
    for model in ("gomin_denoiser", "gomin_diffusion"):
        shutil.copytree(repository / model, home / model)
    config = home / "gomin_diffusion/config.pbtxt"
    text = re.sub(r'(tile_frames" value: { string_value: )"\d+"', rf'\1"{TILE}"', config.read_text())
    config.write_text(re.sub(r'(max_frames" value: { string_value: )"\d+"', rf'\1"{MAX_FRAMES}"', text))
    config = home / "gomin_denoiser/config.pbtxt"
    config.write_text(re.sub(r"(max_queue_delay_microseconds:) \d+", r"\1 20000", config.read_text()))
    return home


@pytest.fixture(scope="module")
def tiled(tiled_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(tiled_repository, tmp_path_factory.mktemp("server") / "log", UNPROBED) as running:
        yield running


@pytest.fixture(params=["grpc", "http", "local"])
def transport(request: pytest.FixtureRequest, tiled: RunningServer, tiled_repository: Path) -> Iterator[Transport]:
    urls = {"grpc": tiled.grpc, "http": tiled.http, "local": f"local:{tiled_repository}"}
    opened = connect(urls[request.param])
    yield opened
    opened.close()


def infer(transport: Transport, mel: np.ndarray = MEL, seeds: np.ndarray = SEEDS, **parameters: Any) -> np.ndarray:
    return transport.infer("gomin_diffusion", 1, {"mel": mel, "seed": seeds}, parameters=parameters)["audio"]


def counted(transport: Transport, model: str = "gomin_denoiser", *, requests: int = 0) -> Statistics:
    """What the server has counted; `requests` must be among it."""

    def ask() -> Statistics:
        statistics = transport.statistics(model, 1)
        assert statistics is not None
        return statistics

    statistics = settled(ask, lambda now: now.requests >= requests, within_s=60)
    assert statistics.requests >= requests
    return statistics


def counted_now(transport: Transport) -> int:
    """The items that the denoiser has computed, as far as the server has counted them."""
    statistics = transport.statistics("gomin_denoiser", 1)
    assert statistics is not None
    return statistics.inferences


@pytest.mark.parametrize(
    ("settings", "atol"),
    [
        (SamplerSettings("fast"), 1e-5),
        (SamplerSettings("ddim", 5, eta=0.75), 1e-5),
        (SamplerSettings("dpm++", 4), 1e-5),
        (SamplerSettings("dpm++sde", 4), 1e-5),
        (SamplerSettings("unipc", timesteps="49,25,7,0"), 1e-5),
        # this schedule's first step magnifies the denoiser's last bits a thousand times
        (SamplerSettings("dpm++", 4, "cosine"), 1e-3),
    ],
)
def test_tiles_of_every_sampler_equal_pytorch_untiled(
    transport: Transport, small_diffusion: DiffusionWrapper, settings: SamplerSettings, atol: float
) -> None:
    result = infer(transport, **settings.to_parameters())

    expected = small_diffusion(torch.from_numpy(MEL), seed=[3, 2**64 - 1], sampler=settings.make(50)).numpy()
    np.testing.assert_allclose(result, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"step": 20}, "unknown request parameter 'step': expected sampler, steps, schedule, eta or timesteps"),
        ({"sampler": "euler"}, "sampler 'euler': expected ddpm, fast, ddim, dpm"),
        ({"steps": 20}, "steps 20: sampler ddpm takes 50"),
        ({"sampler": "dpm++", "steps": "4"}, "steps '4': expected a whole number"),
        ({"sampler": "ddim", "eta": 1.5}, r"eta 1\.5"),
        ({"schedule": "sigmoid"}, "schedule 'sigmoid'"),
        ({"sampler": "ddim", "timesteps": "3,49"}, "timesteps: 49 follows 3"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(
    transport: Transport, parameters: dict[str, Any], words: str
) -> None:
    with pytest.raises(ContractError, match=f"gomin_diffusion: {words}"):
        infer(transport, **parameters)


def test_a_request_of_too_many_frames_is_refused(transport: Transport) -> None:
    with pytest.raises(ContractError, match=f"gomin_diffusion: at most {MAX_FRAMES} frames in one request, .* 1 × 51"):
        infer(transport, np.zeros((1, 32, MAX_FRAMES + 1), np.float32), SEEDS[:1])


def test_other_models_take_no_parameters_in_process(tiled_repository: Path) -> None:
    with pytest.raises(ContractError, match="gomin_denoiser takes no request parameters, such as steps"):
        connect(f"local:{tiled_repository}").infer("gomin_denoiser", 1, {}, parameters={"steps": 3})


def test_bad_requests_fail_alone_among_others_of_other_samplers(tiled: RunningServer) -> None:
    """They wait together while both instances are busy, and arrive in common calls."""
    transport = connect(tiled.grpc)
    mel = MEL[:1, :, :TILE]
    good: list[dict[str, Any]] = [
        {"sampler": "fast"},
        {"sampler": "ddim", "steps": 4},
        {"sampler": "dpm++", "steps": 3},
    ]
    asked = [*good * 2, {"sampler": "euler"}, {"stepz": 1}, {"bad": "mel"}]

    def ask(parameters: dict[str, Any]) -> np.ndarray | GominError:
        if "bad" in parameters:
            return_mel, parameters = np.full_like(mel, np.nan), {}
        else:
            return_mel = mel
        try:
            return infer(transport, return_mel, SEEDS[:1], **parameters)
        except GominError as error:
            return error

    alone = [infer(transport, mel, SEEDS[:1], **parameters) for parameters in good]
    for _ in range(20):  # on a busy machine, each may be done before the next one arrives
        before = counted(transport, "gomin_diffusion")
        with ThreadPoolExecutor(len(asked)) as pool:
            answers = list(pool.map(ask, asked))
        calls = counted(transport, "gomin_diffusion").since(before)
        for answer, expected in zip(answers, alone * 2, strict=False):
            assert not isinstance(answer, GominError), answer
            np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-5)
        assert [type(answer) for answer in answers[6:]] == [ContractError] * 3
        if calls.executions < len(asked):
            break
    transport.close()

    assert calls.executions < len(asked)


def test_concurrent_requests_meet_in_the_denoiser(tiled: RunningServer) -> None:
    """Two instances sample side by side, and the denoiser runs some of their steps together."""
    transport = connect(tiled.grpc)
    mel = MEL[:1, :, :TILE]
    started = threading.Barrier(2)

    def ask(seed: int) -> None:
        started.wait()
        time.sleep(0.03 * seed)  # so that they are not begun together, by one instance
        infer(transport, mel, np.array([[seed]], np.uint64))

    for _ in range(20):  # on a busy machine, one may be done before the other begins
        before = counted(transport)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(ask, range(2)))
        steps = counted(transport, requests=before.requests + 100).since(before)
        # an earlier request that is counted only now is one more of all three
        assert steps.inferences == steps.requests >= 100
        if steps.requests - steps.executions > 10:
            break
    transport.close()

    assert steps.requests - steps.executions > 10


def test_a_cancelled_request_stops_at_its_next_step(tiled: RunningServer) -> None:
    transport = connect(tiled.grpc)
    client = tritonclient.grpc.InferenceServerClient(tiled.grpc.removeprefix("grpc://"))
    inputs = []
    for name, array, kind in (("mel", MEL, "FP32"), ("seed", SEEDS, "UINT64")):
        inputs.append(tritonclient.grpc.InferInput(name, list(array.shape), kind))
        inputs[-1].set_data_from_numpy(array)
    errors: list[Any] = []

    def answer(result: Any, error: Any) -> None:
        errors.append(error)

    def wait_until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 300
        while not condition():
            assert time.monotonic() < deadline

    for attempt in range(1, 21):  # on a busy machine, the chain may go on for long before it is cancelled
        before = counted(transport).inferences
        call = client.async_infer("gomin_diffusion", inputs, answer)
        wait_until(lambda before=before: counted_now(transport) != before)
        call.cancel()
        wait_until(lambda attempt=attempt: len(errors) == attempt)
        infer(transport)  # the same whole chain again: when it has ended, the first one has in any case
        ran = counted(transport).inferences - before - WHOLE_CHAIN
        if ran < 300:
            break
    after = infer(transport, MEL[:1, :, :3], SEEDS[:1], sampler="fast")
    client.close()
    transport.close()

    assert "CANCELLED" in str(errors[-1])
    assert ran < 300  # and not all of them
    assert np.isfinite(after).all()


def test_windows_that_leave_out_the_first_sample_are_served_with_those_that_name_it(tiled: RunningServer) -> None:
    transport = connect(tiled.grpc)
    mel, parameters = MEL[:1, :, :5], {"sampler": "fast"}

    def ask(number: int) -> np.ndarray:
        inputs: dict[str, np.ndarray] = {"mel": mel, "seed": SEEDS[:1]}
        if number % 2:
            inputs["first_sample"] = np.array([[256]], np.int64)
        return transport.infer("gomin_diffusion", 1, inputs, parameters=parameters)["audio"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    transport.close()

    for number, answer in enumerate(answers):
        np.testing.assert_allclose(answer, answers[number % 2], rtol=0, atol=1e-5)
    assert np.abs(answers[0] - answers[1]).max() > 1e-3


def test_export_writes_and_proves_another_default_chain(
    repository: Path, tmp_path: Path, small_diffusion: DiffusionWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "models"
    use_model(monkeypatch, repository / "gomin_denoiser/1/model.onnx")

    def export(**settings: Any) -> Exported:
        options = ExportOptions(deployment=Deployment(**settings))
        return pipeline.export("diffusion", GOLDEN / "diffusion_small.pt", home, options)

    chain = SamplerSettings("dpm++", timesteps="49,40,28,15,6,0")
    exported = export(sampling=chain, tile_frames=12)

    (chain_report,) = (report for report in exported.reports if report.model == "gomin_diffusion")
    assert [case.name for case in chain_report.outcomes] == ["2 × 3 frames, music and clipped noise, dpm++, 6 steps"]
    assert export().plan.exists  # what nobody asks to be changed stays as it is
    words = r"sampling is sampler dpm.. steps 6 schedule linear timesteps 49,40,28,15,6,0, asked for sampler fast"
    with pytest.raises(GominError, match=words):
        export(sampling=SamplerSettings("fast"))
    with_default = infer(connect(f"local:{home}"))
    expected = small_diffusion(torch.from_numpy(MEL), seed=[3, 2**64 - 1], sampler=chain.make(50))
    np.testing.assert_allclose(with_default, expected.numpy(), rtol=0, atol=1e-5)
