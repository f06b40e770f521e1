"""Real recordings through a real Triton server, against the PyTorch networks."""

import copy
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from gomin_client.contract import model as contract
from gomin_client.errors import ContractError, InferenceError, ServerError, UnknownModelError, UsageError
from gomin_client.files import audio
from gomin_client.sampling.noise import NoiseField
from gomin_client.transports.registry import connect
from gomin_client.vocoder import Vocoder
from gomin_export.networks import DiffusionWrapper, GomiGAN
from tests.support import BIN, EXAMPLES, RunningServer, assert_fails, free_ports, golden, run

pytestmark = pytest.mark.long

SEED = 2**63 + 5


class References:
    """What PyTorch makes of each recording's mel, computed once for all transports.

    The reference is the network in float64: in float32 PyTorch's own rounding reaches 1e-5 on these recordings.
    """

    def __init__(self, network: GomiGAN) -> None:
        self._networks = {torch.float64: copy.deepcopy(network).double(), torch.float32: network}
        self._known: dict[str, tuple[np.ndarray, dict[torch.dtype, np.ndarray]]] = {}

    def of(self, recording: Path, mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(samples,) in float64 and in float32."""
        if recording.stem not in self._known:
            made = {
                dtype: network(torch.from_numpy(mel).to(dtype)[None])[0, 0].numpy()
                for dtype, network in self._networks.items()
            }
            self._known[recording.stem] = mel, made
        known, made = self._known[recording.stem]
        np.testing.assert_array_equal(mel, known)
        return made[torch.float64], made[torch.float32]


@pytest.fixture(scope="module")
def references(shared_gan: GomiGAN) -> References:
    return References(shared_gan)


@pytest.fixture(scope="module")
def diffusion_reference(small_diffusion: DiffusionWrapper) -> np.ndarray:
    """(2, samples) of the mels in the golden file, by the seed of the test."""
    mel = torch.from_numpy(golden("diffusion_small_io.npz")["mel"])
    return small_diffusion(mel, seed=SEED)[:, 0].numpy()


def test_there_are_four_examples() -> None:
    assert [path.stem for path in EXAMPLES] == ["crow", "drums", "guitar", "speech"]


@pytest.mark.parametrize("recording", EXAMPLES, ids=lambda path: path.stem)
def test_gan_equals_pytorch(server: RunningServer, recording: Path, references: References) -> None:
    check_against_pytorch(server.grpc, recording, references)


def test_gan_equals_pytorch_over_each_protocol(url: str, references: References) -> None:
    """How a protocol carries the tensors does not depend on the recording."""
    (speech,) = (path for path in EXAMPLES if path.stem == "speech")
    check_against_pytorch(url, speech, references)


def check_against_pytorch(url: str, recording: Path, references: References) -> None:
    original = audio.read(recording)
    with Vocoder(url) as vocoder:
        mel = vocoder.analyze(original.mono()[0], original.rate)

        result = vocoder.synthesize(mel)

    exact, in_float32 = references.of(recording, mel)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, exact, rtol=0, atol=1e-5)
    np.testing.assert_allclose(result, in_float32, rtol=0, atol=1e-5 + np.abs(in_float32 - exact).max())


def test_diffusion_equals_pytorch(url: str, diffusion_reference: np.ndarray) -> None:
    with Vocoder(url, "diffusion") as vocoder:
        result = vocoder.synthesize(golden("diffusion_small_io.npz")["mel"], seed=SEED)

    np.testing.assert_allclose(result, diffusion_reference, rtol=0, atol=1e-5)


def test_diffusion_windows_see_the_noise_of_the_whole(url: str, small_diffusion: DiffusionWrapper) -> None:
    """One request carries a seed and a first sample for each item."""
    mel = golden("diffusion_small_io.npz")["mel"][:, :, :6]
    seeds, firsts = [3, 2**64 - 1], [512, 0]
    transport = connect(url)
    inputs = {
        contract.MEL: mel,
        contract.SEED: np.array(seeds, np.uint64)[:, None],
        contract.FIRST_SAMPLE: np.array(firsts, np.int64)[:, None],
    }

    result = transport.infer("gomin_diffusion", 1, inputs)["audio"]
    transport.close()

    noise = NoiseField(seeds, 6 * 256, firsts)
    expected = small_diffusion(torch.from_numpy(mel), noise=noise).numpy()
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def test_a_batch_of_mels(url: str) -> None:
    mels = np.random.default_rng(0).uniform(0, 1, (3, 128, 9)).astype(np.float32)
    with Vocoder(url) as vocoder:
        together = vocoder.synthesize(mels)
        alone = np.stack([vocoder.synthesize(mel) for mel in mels])

    assert together.shape == (3, 9 * 256)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 255, 256, 257, 7777])
def test_reconstruction_has_the_recordings_length(url: str, samples: int) -> None:
    wave = np.random.default_rng(samples).uniform(-0.1, 0.1, samples).astype(np.float32)
    with Vocoder(url) as vocoder:
        trimmed = vocoder.reconstruct(wave, 24000)
        whole = vocoder.reconstruct(wave, 24000, trim=False)

    assert len(trimmed) == samples
    assert len(whole) == 256 * (1 + samples // 256)
    np.testing.assert_allclose(trimmed, whole[:samples], rtol=0, atol=1e-6)


def test_mels_that_do_not_fit_are_refused(url: str) -> None:
    with Vocoder(url) as vocoder:
        for mel, words in (
            (np.zeros((80, 5)), r"mel has shape \(80, 5\); model gomin_gan takes \(128, frames\)"),
            (np.zeros((128, 0)), r"mel has shape \(128, 0\)"),
            (np.full((128, 5), np.nan), "NaN"),
        ):
            with pytest.raises(ContractError, match=words):
                vocoder.synthesize(mel)
        with pytest.raises(UsageError, match="a seed has no effect"):
            vocoder.synthesize(np.zeros((128, 5)), seed=1)


def test_tensors_that_the_model_does_not_take_are_errors(url: str) -> None:
    transport = connect(url)
    try:
        for inputs in ({"mel": np.zeros((1, 80, 5), np.float32)}, {"mel": np.zeros((1, 128, 5), np.int32)}):
            with pytest.raises((ContractError, InferenceError), match=r"mel|input data type"):
                transport.infer("gomin_gan", 1, inputs)
        assert transport.infer("gomin_gan", 1, {"mel": np.zeros((1, 128, 5), np.float32)})["audio"].shape == (
            1,
            1,
            1280,
        )
    finally:
        transport.close()


@pytest.mark.parametrize("mel", [np.full((1, 32, 3), np.nan, np.float32), np.zeros((1, 32, 0), np.float32)])
def test_the_diffusion_model_answers_a_bad_request_with_an_error(server: RunningServer, mel: np.ndarray) -> None:
    transport = connect(server.grpc)
    seed = np.zeros((1, 1), np.uint64)

    with pytest.raises(ContractError, match="gomin_diffusion: mel"):
        transport.infer("gomin_diffusion", 1, {"mel": mel, "seed": seed})
    good = transport.infer("gomin_diffusion", 1, {"mel": np.zeros((1, 32, 3), np.float32), "seed": seed})
    transport.close()

    assert np.isfinite(good["audio"]).all()


def test_unknown_models_are_listed(url: str) -> None:
    with pytest.raises(UnknownModelError, match="no model wavenet; it has gomin_denoiser, gomin_diffusion, gomin_gan"):
        Vocoder(url, "wavenet")


def test_a_model_that_is_no_vocoder_is_refused(url: str) -> None:
    with pytest.raises(ContractError, match="gomin_denoiser is of kind denoiser"):
        Vocoder(url, "gomin_denoiser")


def test_threads_may_share_a_vocoder(url: str) -> None:
    mels = np.random.default_rng(1).uniform(0, 1, (6, 128, 9)).astype(np.float32)
    results: dict[int, np.ndarray] = {}
    with Vocoder(url) as vocoder:
        threads = [
            threading.Thread(target=lambda i=i: results.__setitem__(i, vocoder.synthesize(mels[i])))
            for i in range(len(mels))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = vocoder.synthesize(mels)

    for i, result in results.items():
        np.testing.assert_allclose(result, expected[i], rtol=0, atol=1e-5)
    assert len(results) == 6


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_no_server_is_one_line_with_the_ways_out(scheme: str) -> None:
    (port,) = free_ports(1)
    with pytest.raises(ServerError) as caught:
        Vocoder(f"{scheme}://127.0.0.1:{port}")

    message = str(caught.value)
    assert "\n" not in message
    assert f"{scheme}://127.0.0.1:{port}" in message
    assert "gomin-server --model-repository" in message
    assert 'Vocoder("local:model_repository")' in message


@pytest.mark.parametrize("crossed", ["http to grpc", "grpc to http", "http to metrics"])
def test_the_wrong_port_is_one_line(server: RunningServer, crossed: str) -> None:
    url = {
        "http to grpc": f"http://127.0.0.1:{server.grpc_port}",
        "grpc to http": f"grpc://127.0.0.1:{server.http_port}",
        "http to metrics": f"http://127.0.0.1:{server.metrics_port}",
    }[crossed]

    result = run("gomin-client", "info", "--url", url)

    assert_fails(result, 3, url)


def test_local_runs_are_interrupted_at_once(repository: Path, tmp_path: Path) -> None:
    """An hour of audio takes ONNX Runtime minutes; the signal is to end it within seconds."""
    soundfile.write(tmp_path / "long.flac", np.zeros(8000 * 3600, np.float32), 8000)
    command = [BIN / "gomin-client", "reconstruct", tmp_path / "long.flac", "--url", f"local:{repository}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    onnxruntime_threads = 4
    while process.poll() is None and len(list(Path(f"/proc/{process.pid}/task").iterdir())) < onnxruntime_threads:
        time.sleep(0.1)
    time.sleep(3)
    assert process.poll() is None, "finished before it could be interrupted"

    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=90)

    assert process.returncode == 130
    assert stderr.startswith("gomin-client: interrupted")
    assert [path.name for path in tmp_path.iterdir()] == ["long.flac"]


def test_local_refuses_a_model_that_config_and_onnx_describe_differently(repository: Path, tmp_path: Path) -> None:
    home = tmp_path / "models"
    shutil.copytree(repository / "gomin_gan", home / "gomin_gan")
    config = home / "gomin_gan" / "config.pbtxt"
    config.write_text(
        config.read_text().replace('halo_frames" value: { string_value: "', 'halo_frames" value: { string_value: "9')
    )

    with Vocoder(f"local:{home}") as vocoder, pytest.raises(ContractError, match="not written by the same export"):
        vocoder.synthesize(np.zeros((128, 3)))


def test_local_says_what_is_wrong_with_a_repository(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="there is no directory"):
        Vocoder(f"local:{tmp_path / 'nowhere'}")
    with pytest.raises(UnknownModelError, match="no models at all: run gomin-export first"):
        Vocoder(f"local:{tmp_path}")
    (tmp_path / "gomin_gan" / "1").mkdir(parents=True)
    (tmp_path / "gomin_gan" / "config.pbtxt").write_text("name: ")
    with pytest.raises(ContractError, match=r"config\.pbtxt: cannot be read as a Triton model configuration"):
        Vocoder(f"local:{tmp_path}")
