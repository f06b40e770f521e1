"""gomin_diffusion_stream on a real Triton server, and in-process: an answer after each step of a chain."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gomin_client import AsyncVocoder, Vocoder
from gomin_client.cli.main import app
from gomin_client.contract.model import DENOISER_MODEL, DIFFUSION_MODEL, DIFFUSION_STREAM_MODEL
from gomin_client.errors import ContractError, UnknownModelError, UsageError
from gomin_client.sampling.base import predicted_signal, sample_steps
from gomin_client.sampling.noise import NoiseField
from gomin_client.transports.local import LocalTransport
from gomin_client.transports.registry import connect
from gomin_client.transports.statistics import settled
from gomin_export.cli import app as export
from tests.client.cli.test_progress import shown_in_terminal
from tests.gateway.running import running
from tests.gateway.test_problems import npy
from tests.support import UNPROBED, RunningServer, assert_fails, invoke, serving

FRAMES = 25
MEL = np.random.default_rng(0).uniform(0, 1, (32, FRAMES)).astype(np.float32)
SEED = 7
CHAINS = ("ddpm", "fast", "ddim", "dpm++", "dpm++sde", "unipc")


@pytest.fixture(scope="module")
def server(streaming: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(streaming, tmp_path_factory.mktemp("server") / "log", UNPROBED) as running:
        yield running


@pytest.fixture(params=["grpc", "local"])
def url(request: pytest.FixtureRequest, server: RunningServer, streaming: Path) -> str:
    return {"grpc": server.grpc, "local": f"local:{streaming}"}[request.param]


@pytest.mark.server
class TestStream:
    @pytest.mark.parametrize("sampler", CHAINS)
    def test_each_step_is_the_samplers_own_prediction(self, url: str, streaming: Path, sampler: str) -> None:
        """Computed here from the signals of an untiled chain; the last one equals gomin_diffusion's answer."""
        with Vocoder(url, "diffusion", sampler=sampler) as vocoder:
            steps = list(vocoder.synthesize_steps(MEL, SEED))
            whole = vocoder.synthesize(MEL, SEED)
            chain = vocoder.sampling
        assert chain is not None
        made = chain.make(50)
        with LocalTransport(streaming) as local:

            def denoise(signal: np.ndarray, timestep: np.ndarray, mel: np.ndarray) -> np.ndarray:
                inputs = {"signal": signal, "timestep": timestep[:, np.newaxis], "mel": mel}
                return local.infer(DENOISER_MODEL, 1, inputs)["noise"]

            mel, noise = MEL[np.newaxis], NoiseField([SEED], 256 * FRAMES, [0])
            signals = list(sample_steps(denoise, mel, noise, made))
            expected = [
                predicted_signal(signal, denoise(signal, np.array([timestep], np.float32), mel), alpha_bar)
                for signal, timestep, alpha_bar in zip(signals, made.timesteps, made.alphas_cumprod, strict=False)
            ]

        assert [(step.number, step.steps) for step in steps] == [
            (number, len(made.timesteps)) for number in range(1, len(made.timesteps) + 1)
        ]
        assert [step.timestep for step in steps] == pytest.approx(made.timesteps, rel=1e-6)
        assert np.array_equal(steps[-1].audio, whole)
        for step, predicted in zip(steps[:-1], expected[:-1], strict=True):
            assert step.audio == pytest.approx(predicted[0, 0], abs=1e-4)  # in tiles of 10 frames here
        assert not np.array_equal(steps[0].audio, steps[-2].audio)

    def test_a_batch(self, url: str) -> None:
        with Vocoder(url, "diffusion") as vocoder:
            steps = list(vocoder.synthesize_steps(np.stack([MEL, MEL[:, ::-1]]), SEED))
            whole = vocoder.synthesize(MEL, SEED)

        assert [step.number for step in steps] == [1, 2, 3, 4, 5]
        assert {step.audio.shape for step in steps} == {(2, 256 * FRAMES)}
        assert steps[-1].audio[0] == pytest.approx(whole, abs=2e-5)

    def test_with_asyncio(self, url: str) -> None:
        async def steps() -> list[int]:
            async with AsyncVocoder(url, "diffusion") as vocoder:
                return [step.number async for step in vocoder.synthesize_steps(MEL, SEED)]

        assert asyncio.run(steps()) == [1, 2, 3, 4, 5]

    def test_errors(self, url: str) -> None:
        with Vocoder(url, "diffusion") as vocoder:
            with pytest.raises(ContractError, match="NaN"):
                list(vocoder.synthesize_steps(np.full_like(MEL, np.nan), SEED))
            with pytest.raises(UsageError, match=r"17 mels: model gomin_diffusion_stream takes at most 16"):
                list(vocoder.synthesize_steps(np.stack([MEL] * 17), SEED))
            with pytest.raises(UsageError, match="seed -1"):
                list(vocoder.synthesize_steps(MEL, -1))
            assert len(list(vocoder.synthesize_steps(MEL, SEED))) == 5


@pytest.fixture
def ended_early(server: RunningServer) -> Iterator[None]:
    """What runs meanwhile leaves a chain of 50 long steps after its first one: the others are not computed."""
    with connect(server.grpc) as transport, Vocoder(server.grpc, "diffusion", sampler="ddpm") as vocoder:
        before = transport.statistics(DENOISER_MODEL, 1)
        assert before is not None
        yield
        # the next request of this single instance is answered after the chain has ended
        assert len(list(vocoder.synthesize_steps(MEL, SEED))) == 50
        after = settled(lambda: transport.statistics(DENOISER_MODEL, 1), lambda now: now is not None, within_s=60)
        assert after is not None
        # and not 50 steps of the long mel; on a busy machine, many are done before somebody hears that it has to end
        assert after.requests - before.requests < 40 * 100 + 50 * 4


LONG_MEL = np.tile(MEL, 40)  # 100 tiles and more a step


@pytest.mark.server
@pytest.mark.usefixtures("ended_early")
def test_a_chain_that_is_not_wanted_any_more_ends(server: RunningServer) -> None:
    with (
        Vocoder(server.grpc, "diffusion", sampler="ddpm") as vocoder,
        closing(vocoder.synthesize_steps(LONG_MEL, SEED)) as steps,
    ):
        assert next(steps).number == 1


@pytest.mark.server
@pytest.mark.usefixtures("ended_early")
def test_a_caller_of_the_gateway_who_goes_away_ends_the_chain(server: RunningServer) -> None:
    with running([server.grpc]) as gateway:
        with closing(gateway.connect()) as connection:
            connection.request("POST", "/v1/synthesize/steps?sampler=ddpm", npy(LONG_MEL))
            response = connection.getresponse()
            assert json.loads(response.readline())["step"] == 1
        gateway.wait_until_idle()


@pytest.mark.server
def test_what_cannot_stream_says_so(server: RunningServer, streaming: Path, tmp_path: Path) -> None:
    with Vocoder(server.http, "diffusion") as vocoder, pytest.raises(UsageError, match="needs grpc:// or local:"):
        list(vocoder.synthesize_steps(MEL, SEED))
    for model in (DENOISER_MODEL, DIFFUSION_MODEL):
        shutil.copytree(streaming / model, tmp_path / model)
    with (
        Vocoder(f"local:{tmp_path}", "diffusion") as vocoder,
        pytest.raises(UnknownModelError, match=r"no model gomin_diffusion_stream.*gomin-export diffusion --stream"),
    ):
        list(vocoder.synthesize_steps(MEL, SEED))
    asked = invoke(app, "bench", "--url", server.grpc, "--model", DIFFUSION_STREAM_MODEL)
    assert_fails(asked, 5, "sends several answers: choose diffusion")


@pytest.mark.server
def test_info_and_verify_know_it(server: RunningServer, streaming: Path) -> None:
    described = invoke(app, "info", "--url", server.grpc)
    verified = invoke(export, "verify", "--url", server.grpc, "--repository", streaming)

    assert f"{DIFFUSION_STREAM_MODEL}: mel spectrogram to waveform" in described.stdout
    assert "default chain: sampler ddim, steps 5" in described.stdout.partition(DIFFUSION_STREAM_MODEL)[2]
    assert "it sends several answers, over a gRPC stream only" in described.stdout
    assert verified.returncode == 0, verified.stderr
    assert f"{DIFFUSION_STREAM_MODEL} version 1: 1 of 1 cases passed" in verified.stdout


@pytest.mark.server
def test_verify_over_http_compares_all_but_its_outputs(server: RunningServer, streaming: Path, tmp_path: Path) -> None:
    shutil.copytree(streaming, tmp_path / "other")
    report = tmp_path / "other" / DIFFUSION_STREAM_MODEL / "1/parity.json"
    report.write_text(re.sub('(checkpoint_sha256": ")....', r"\g<1>0000", report.read_text()))

    verified = invoke(export, "verify", "--url", server.http, "--repository", streaming)
    alone, other = (
        invoke(export, "verify", "--url", server.http, "--repository", home, "--model", DIFFUSION_STREAM_MODEL)
        for home in (streaming, tmp_path / "other")
    )

    assert verified.returncode == 0, verified.stderr
    assert f"{DIFFUSION_MODEL} version 1: 1 of 1 cases passed" in verified.stdout
    words = "its outputs were not compared: it sends several answers, which needs grpc:// or local:"
    assert f"{DIFFUSION_STREAM_MODEL} version 1: {words}\n" in verified.stdout
    assert_fails(alone, 2, words)
    assert_fails(other, 4, f"{DIFFUSION_STREAM_MODEL} version 1: checkpoint_sha256: is ")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording of two channels, and a mel."""
    home = tmp_path_factory.mktemp("steps")
    noise = np.random.default_rng(1).normal(0, 0.1, (256 * FRAMES - 100, 2))
    soundfile.write(home / "a.wav", noise, 24000, "FLOAT")
    np.save(home / "a.npy", MEL)
    return home


@pytest.mark.server
class TestCommandLine:
    def test_stop_after_keeps_what_the_step_predicts(self, url: str, home: Path, tmp_path: Path) -> None:
        options = ("--url", url, "--model", "diffusion", "--seed", SEED, "--subtype", "float")
        stopped = ("reconstruct", home / "a.wav", *options, "--channels", "all", "--stop-after")
        second = invoke(app, *stopped, "2", "-o", tmp_path / "second.wav")
        last = invoke(app, *stopped, "5", "-o", tmp_path / "last.wav")
        whole = invoke(app, *stopped[:-1], "-o", tmp_path / "whole.wav")
        followed = invoke(app, "synthesize", home / "a.npy", *options, "--progress", "-o", tmp_path / "mel.wav")
        with Vocoder(url, "diffusion") as vocoder:
            recording = soundfile.read(home / "a.wav", dtype="float32")[0].T
            steps = list(vocoder.synthesize_steps(vocoder.analyze(recording, 24000), SEED))
            from_mel = vocoder.synthesize(MEL, SEED)

        for result in (second, last, whole, followed):
            assert result.returncode == 0, result.stderr
        assert second.stderr == ""
        assert followed.stderr.splitlines() == [f"step {number} of 5" for number in range(1, 6)]
        for name, expected in (
            ("second", steps[1].audio[:, : recording.shape[1]]),
            ("last", soundfile.read(tmp_path / "whole.wav")[0].T),
            ("mel", from_mel),
        ):
            assert pytest.approx(expected, abs=2e-5) == soundfile.read(tmp_path / f"{name}.wav")[0].T
        assert soundfile.SoundFile(tmp_path / "second.wav").comment.endswith("schedule linear, stopped after step 2")

    def test_a_terminal_shows_the_steps(self, streaming: Path, home: Path, tmp_path: Path) -> None:
        options = ("--url", f"local:{streaming}", "--model", "diffusion", "--progress", "-o", tmp_path / "a.wav")

        shown = shown_in_terminal("reconstruct", home / "a.wav", *options)

        assert "step 5 of 5" in shown

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--stop-after", "6"), "step 6: the chain has steps 1 to 5"),
            (("--progress", "--window", "9"), "--window 9: with --progress or --stop-after, a file is one request"),
            (
                ("--stop-after", "2", "--in-flight", "3"),
                "--in-flight 3: with --progress or --stop-after, a file is one",
            ),
            (("--progress", "--verbose"), "--verbose: with --progress or --stop-after, there are no windows"),
            (("--progress", "--json"), "--progress with --json: nothing would be shown"),
            (("--progress", "--quiet"), "--progress with --quiet: nothing would be shown"),
            (("--stop-after", "2", "--stream", "-o", "-"), "need the whole mel: give a file instead of --stream"),
        ],
    )
    def test_options_that_contradict_each_other(
        self, streaming: Path, home: Path, options: tuple[str, ...], words: str
    ) -> None:
        target = () if "-o" in options else ("-o", home / "none.wav")
        asked = invoke(
            app, "reconstruct", home / "a.wav", "--url", f"local:{streaming}", "--model", "diffusion", *options, *target
        )

        assert_fails(asked, 2, words)
        assert not (home / "none.wav").exists()

    def test_several_files_and_http(self, server: RunningServer, home: Path, tmp_path: Path) -> None:
        shutil.copy(home / "a.npy", home / "b.npy")
        files = ("synthesize", home / "a.npy", home / "b.npy", "-o", f"{tmp_path}/out/", "--model", "diffusion")

        over_http = invoke(app, *files, "--url", server.http, "--stop-after", "1")
        progress = invoke(app, *files, "--url", server.grpc, "--progress")
        results = tmp_path / "results.jsonl"
        both = invoke(app, *files, "--url", server.grpc, "--stop-after", "1", "--results", results)

        assert_fails(over_http, 2, "gomin_diffusion_stream sends several answers, which needs grpc:// or local:")
        assert_fails(progress, 2, "--progress shows the steps of a single file; there are 2")
        assert both.returncode == 0, both.stderr
        assert (tmp_path / "out/a.wav").read_bytes() != b""
        run = json.loads(results.read_text().splitlines()[0])
        assert (run["stop_after"], run["sampling"]["steps"]) == (1, 5)
