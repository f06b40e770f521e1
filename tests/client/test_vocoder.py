"""The Python API: windowed equals whole, streams equal whole files, and live input is heard early."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import gomin_client
from gomin_client import (
    Connection,
    ContractError,
    MelConfig,
    MockModel,
    MockTransport,
    SamplerSettings,
    SuspiciousAudioError,
    SuspiciousMelError,
    UsageError,
    Vocoder,
)
from gomin_client.cli.main import app
from gomin_client.contract.model import ModelContract
from gomin_client.files import audio
from gomin_client.mel import resampling
from gomin_client.transports.local import LocalTransport
from gomin_client.transports.statistics import settled
from tests.support import EXAMPLES, RunningServer, assert_fails, invoke

pytestmark = pytest.mark.long

Wave = NDArray[np.float32]


@pytest.fixture(scope="module")
def recording() -> Wave:
    """The examples, one after another, (samples,) at 24 kHz."""
    resampled = [resampling.resample(read.mono()[0], read.rate, 24000) for read in map(audio.read, EXAMPLES)]
    joined = np.concatenate(resampled).astype(np.float32)
    assert len(joined) > 2 * 512 * 256, "one window of 512 frames would have no border"
    return joined


@pytest.fixture(scope="module")
def whole(repository: Path, recording: Wave) -> Wave:
    """What the demo model makes of it in one piece."""
    with Vocoder(f"local:{repository}", window=10_000) as vocoder:
        assert vocoder.window > len(recording) / 256 + 1
        return vocoder.reconstruct(recording, 24000)


@pytest.fixture(scope="module")
def tiny(tiny_repository: Path) -> Iterator[LocalTransport]:
    """The tiny GAN, loaded once for vocoders with different windows."""
    with LocalTransport(tiny_repository) as transport:
        yield transport


def blocks_of(array: NDArray[np.float32], size: int) -> Iterator[NDArray[np.float32]]:
    for first in range(0, array.shape[-1], size):
        yield array[..., first : first + size]


class TestSeams:
    @pytest.mark.parametrize("where", ["grpc", "local"])
    @pytest.mark.parametrize("window", [128, 512])
    def test_a_recording_has_no_seams(
        self, server: RunningServer, repository: Path, recording: Wave, whole: Wave, where: str, window: int
    ) -> None:
        """The difference from the whole, around every border and everywhere else."""
        url = server.grpc if where == "grpc" else f"local:{repository}"
        with Vocoder(url, window=window, in_flight=3) as vocoder:
            assert window > 2 * vocoder.chain_halo_frames
            made = vocoder.reconstruct(recording, 24000)

        assert made.shape == whole.shape
        assert np.abs(made - whole).max() <= 1e-5

    def test_windows_that_are_too_short_are_refused(self, repository: Path) -> None:
        with pytest.raises(UsageError, match="a window of 26 frames: expected more than 26"):
            Vocoder(f"local:{repository}", window=26)
        assert_fails(
            invoke(app, "reconstruct", EXAMPLES[0], "--url", f"local:{repository}", "--window", "5"),
            2,
            "twice the model's halo",
        )

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(1, 150), st.integers(1, 60), st.integers(1, 40), st.integers(1, 3), st.integers(0, 9))
    def test_any_window_any_length(
        self, tiny: LocalTransport, frames: int, extra: int, block: int, in_flight: int, first: int
    ) -> None:
        reference = Vocoder(tiny)
        mel = np.random.default_rng(frames).uniform(0, 1, (reference.contract.mel.n_mels, frames))
        halo = reference.chain_halo_frames
        vocoder = Vocoder(tiny, window=2 * halo + extra, in_flight=in_flight)
        made = list(vocoder.stream(blocks_of(mel, block), first_window=halo + first if first else None))

        expected = reference.synthesize(mel)
        np.testing.assert_allclose(np.concatenate(made), expected, rtol=0, atol=1e-5)


class TestStreams:
    @pytest.mark.parametrize("rate", [24000, 44100, 8000])
    @pytest.mark.parametrize("block", [1, 777, 100_000])
    def test_a_recording_in_blocks(self, repository: Path, rate: int, block: int) -> None:
        wave = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 3001)).astype(np.float32)
        with Vocoder(f"local:{repository}") as vocoder:
            expected = vocoder.reconstruct(wave, rate)
            made = np.concatenate(list(vocoder.reconstruct_stream(blocks_of(wave, block), rate)), axis=-1)
            mono = np.concatenate(list(vocoder.reconstruct_stream(blocks_of(wave[0], block), rate, trim=False)))

        np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)
        assert mono.ndim == 1
        assert len(mono) % 256 == 0
        np.testing.assert_allclose(mono[: expected.shape[1]], expected[0], rtol=0, atol=1e-5)

    def test_a_mel_as_it_is_made(self, server: RunningServer) -> None:
        """Frame by frame; the next one is only given when all the audio that can be made of those so far is there."""
        frames = 60
        made: list[Wave] = []
        with Vocoder(server.grpc, window=32) as vocoder:
            mel = np.random.default_rng(1).uniform(0, 1, (128, frames)).astype(np.float32)
            expected = vocoder.synthesize(mel)
            # frames that audio may lag behind
            most = max(vocoder.first_window, vocoder.window - vocoder.chain_halo_frames) + 1

            def live() -> Iterator[NDArray[np.float32]]:
                for frame in range(frames):
                    deadline = time.monotonic() + 120
                    while frame - sum(map(len, made)) // 256 > most:
                        assert time.monotonic() < deadline, f"audio lags more than {most} frames behind"
                        time.sleep(0.005)
                    yield mel[:, frame : frame + 1]

            for part in vocoder.stream(live(), first_window=vocoder.first_window):
                made.append(part)
            assert len(made) > 5
        np.testing.assert_allclose(np.concatenate(made), expected, rtol=0, atol=1e-5)

    def test_a_source_without_anything_new(self, repository: Path) -> None:
        mel = np.zeros((128, 9), np.float32)
        with Vocoder(f"local:{repository}") as vocoder:
            assert list(vocoder.stream([])) == []
            made = list(vocoder.stream([mel[:, :0], mel, mel[:, :0]]))
        assert sum(map(len, made)) == 9 * 256

    def test_a_quiet_moment_of_a_stream_is_no_reason_for_doubt(self, repository: Path) -> None:
        """A network that predicts mels may be a little below 0 where there is silence."""
        mel = np.full((128, 400), 0.5, np.float32)
        mel[:, :200] = -0.03
        with Vocoder(f"local:{repository}") as vocoder:
            made = list(vocoder.stream(blocks_of(mel, 1)))
        assert sum(map(len, made)) == 400 * 256

    def test_bad_blocks(self, repository: Path) -> None:
        good = np.zeros((128, 60), np.float32)
        with Vocoder(f"local:{repository}", window=32) as vocoder:
            for bad, error in (
                (good - 5, SuspiciousMelError),
                (good[:80], ContractError),
                (good * np.nan, ContractError),
            ):
                parts: list[Wave] = []
                with pytest.raises(error):
                    parts.extend(vocoder.stream([good, bad]))
                assert parts, "what was good is there"
            with pytest.raises(UsageError, match="a first window of 3 frames"):
                vocoder.stream([good], first_window=3)

    def test_leaving_early_stops_the_reading(self, repository: Path) -> None:
        read, ended = [], threading.Event()
        before = set(threading.enumerate())

        def endless() -> Iterator[NDArray[np.float32]]:
            try:
                for index in itertools.count():
                    read.append(index)
                    yield np.zeros((128, 20), np.float32)
            finally:
                ended.set()

        with Vocoder(f"local:{repository}", window=32) as vocoder:
            for index, _ in enumerate(vocoder.stream(endless())):
                if index == 3:
                    break
            assert ended.wait(120)
        assert len(read) < 40
        assert len(set(threading.enumerate()) - before) < 40


def test_concurrent_callers_meet_in_batches(server: RunningServer) -> None:
    """Windows have one shape, so Triton's dynamic batcher merges those of eight callers."""
    mel = np.random.default_rng(3).uniform(0, 1, (128, 240)).astype(np.float32)
    vocoders = [Vocoder(server.grpc, window=64) for _ in range(8)]
    before = settled(vocoders[0].statistics)
    expected = vocoders[0].synthesize(mel)
    results: dict[int, Wave] = {}
    threads = [
        threading.Thread(target=lambda i=i: results.__setitem__(i, vocoders[i].synthesize(mel))) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = settled(vocoders[0].statistics)
    for vocoder in vocoders:
        vocoder.close()

    assert before is not None
    assert after is not None
    spent = after.since(before)
    assert spent.inferences > 1.5 * spent.executions, "hardly any batches of more than one"
    for wave in results.values():
        np.testing.assert_allclose(wave, expected, rtol=0, atol=1e-5)


def test_audio_far_beyond_full_scale_is_refused_where_it_is_heard() -> None:
    """A stream may begin with silence; integers that are stored as floats come later."""
    quiet, loud = np.zeros(4000, np.float32), np.full(4000, 20000, np.float32)

    with Vocoder(MockTransport({"gomin_gan": MockModel.vocoder(silent)}), window=80) as vocoder:
        for call in (vocoder.analyze, vocoder.reconstruct):
            with pytest.raises(SuspiciousAudioError, match="reaches 20000, far beyond full scale"):
                call(loud, 24000)
            assert len(call(loud, 24000, force=True))
        with pytest.raises(SuspiciousAudioError):
            list(vocoder.reconstruct_stream([quiet, loud], 24000))
        made = vocoder.reconstruct_stream([quiet, loud], 24000, force=True)
        assert sum(map(len, made)) == 8000


class TestPackage:
    def test_importing_the_api_loads_nothing_heavy(self) -> None:
        program = """
import sys
import gomin_client
assert "numpy" not in sys.modules, "numpy"
from gomin_client import Connection, GominError, MelConfig, MockTransport, SamplerSettings, Vocoder, to_gomin
print(sorted({"tritonclient", "grpc", "onnxruntime", "librosa", "soundfile", "soxr", "torch"} & set(sys.modules)))
"""
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip() == "[]"

    def test_all_names_are_there(self) -> None:
        assert all(getattr(gomin_client, name) is not None for name in gomin_client.__all__)
        assert set(gomin_client.__all__) <= set(dir(gomin_client))
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            gomin_client.nothing  # noqa: B018

    def test_the_import_path_of_version_0_1(self) -> None:
        from gomin_client.conventions import to_gomin

        assert to_gomin is gomin_client.to_gomin


class TestSettings:
    def test_a_window_of_another_size_shares_the_connection(self) -> None:
        transport = MockTransport({"gomin_gan": MockModel.vocoder(silent, halo_frames=2)})
        with Vocoder(transport) as vocoder:
            small = vocoder.with_window(10)
            small.synthesize(np.zeros((128, 20), np.float32))
            vocoder.synthesize(np.zeros((128, 20), np.float32))

        assert (small.window, vocoder.window) == (10, 512)
        assert [call.inputs["mel"].shape[-1] for call in transport.calls] == [10, 10, 10, 20]
        with pytest.raises(UsageError, match="closed"):
            small.synthesize(np.zeros((128, 20), np.float32))
        with pytest.raises(UsageError, match="expected more than 4"):
            vocoder.with_window(4)

    def test_the_window_is_read_only(self) -> None:
        with Vocoder(MockTransport({"gomin_gan": MockModel.vocoder(silent)})) as vocoder, pytest.raises(AttributeError):
            vocoder.window = 100  # type: ignore[misc]

    def test_a_chain_in_either_form(self) -> None:
        parameters = ModelContract("diffusion", MelConfig(), 13, num_diffusion_steps=50).to_parameters()
        transport = MockTransport({"gomin_diffusion": MockModel(lambda _: {}, parameters)})
        chosen = SamplerSettings(sampler="ddim", steps=3)
        one, other = (
            Vocoder(transport, "diffusion", sampling=chosen),
            Vocoder(transport, "diffusion", sampler="ddim", steps=3),
        )

        assert one.sampling == other.sampling
        with pytest.raises(UsageError, match="sampling and steps: the chain is given in one form"):
            Vocoder(transport, "diffusion", sampling=chosen, steps=3)
        with pytest.raises(UsageError, match="unexpected keyword argument 'step'"):
            Vocoder(transport, "diffusion", step=3)  # type: ignore[call-arg]
        with pytest.raises(UsageError, match="steps 'many': expected a whole number"):
            Vocoder(transport, "diffusion", steps="many")  # type: ignore[arg-type]

    @pytest.mark.parametrize("in_flight", [0, 1.5, None])
    def test_windows_in_flight(self, in_flight: int) -> None:
        transport = MockTransport({"gomin_gan": MockModel.vocoder(silent)})
        with pytest.raises(UsageError, match="windows in flight: expected at least 1"):
            Vocoder(transport, in_flight=in_flight)
        assert transport.closed

    @pytest.mark.parametrize(
        "arguments",
        [
            {"url": None},
            {"url": 8001},
            {"url": [None]},
            {"url": b"local:x"},
            {"model": None},
            {"model": ["gan"]},
            {"model": Path("gan")},
            {"connection": "grpc://localhost"},
            {"connection": {"wait_s": 1}},
            {"sampling": {"steps": 3}},
            {"window": "wide"},
            {"window": 1.5},
        ],
        ids=str,
    )
    def test_arguments_of_another_type(self, arguments: dict[str, Any]) -> None:
        transport = MockTransport({"gomin_gan": MockModel.vocoder(silent)})
        with pytest.raises(UsageError):
            Vocoder(**{"url": transport, **arguments})

    @pytest.mark.parametrize(
        "settings",
        [{"wait_s": "1"}, {"timeout_s": "1"}, {"retry_for_s": None}, {"ca": 1}, {"headers": [("a", "b")]}],
        ids=str,
    )
    def test_connections_of_another_type(self, settings: dict[str, Any]) -> None:
        with pytest.raises(UsageError):
            Connection(**settings)

    def test_calls_with_arguments_of_another_type(self) -> None:
        mel = np.zeros((128, 5), np.float32)
        with Vocoder(MockTransport({"gomin_gan": MockModel.vocoder(silent)})) as vocoder:
            for call in (
                lambda: vocoder.synthesize(None),
                lambda: vocoder.synthesize("mel.npy"),
                lambda: vocoder.synthesize(mel, mel_config={"n_mels": 128}),
                lambda: list(vocoder.stream([mel], first_window="soon")),
                lambda: list(vocoder.stream(mel)),
                lambda: list(vocoder.stream(None)),
                lambda: list(vocoder.reconstruct_stream(3, 24000)),
                lambda: vocoder.analyze([0.5, 0.5], None),
                lambda: gomin_client.to_gomin("mel.npy", "db"),
                lambda: pickle.dumps(vocoder),
            ):
                with pytest.raises(gomin_client.GominError):
                    call()

    def test_windows_of_numpys_integers(self) -> None:
        with Vocoder(MockTransport({"gomin_gan": MockModel.vocoder(silent)}), window=np.int64(100)) as vocoder:
            assert vocoder.window == 100

    def test_a_gan_has_no_chain_and_no_seed(self) -> None:
        transport = MockTransport({"gomin_gan": MockModel.vocoder(silent)})
        with pytest.raises(UsageError, match="has no sampling chain: steps have no effect"):
            Vocoder(transport, steps=3)
        with Vocoder(transport) as vocoder, pytest.raises(UsageError, match="draws no noise"):
            vocoder.synthesize(np.zeros((128, 3)), seed=1)


def silent(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.zeros((len(mel), 256 * mel.shape[-1]), np.float32)


class TestChannelsLast:
    @pytest.mark.parametrize("channels", [1, 2])
    def test_frames_by_channels(self, repository: Path, channels: int) -> None:
        """Blocks as sounddevice and soundfile give them; the result has the same layout."""
        wave = np.random.default_rng(0).uniform(-0.3, 0.3, (1280, channels)).astype(np.float32)
        with Vocoder(f"local:{repository}") as vocoder:
            expected = vocoder.reconstruct(wave.T, 24000)
            made = vocoder.reconstruct(wave, 24000, channels_last=True)
            blocks = [wave[first : first + 64] for first in range(0, 1280, 64)]
            streamed = np.concatenate(list(vocoder.reconstruct_stream([wave[:0], *blocks], 24000, channels_last=True)))
            mel = vocoder.analyze(wave, 24000, channels_last=True)
            with pytest.raises(UsageError, match="pass `channels_last=True`"):
                list(vocoder.reconstruct_stream(blocks, 24000))

        assert made.shape == streamed.shape == (1280, channels)
        assert mel.shape == (channels, 128, 6)
        np.testing.assert_allclose(made, expected.T, rtol=0, atol=1e-6)
        np.testing.assert_allclose(streamed, expected.T, rtol=0, atol=1e-5)
