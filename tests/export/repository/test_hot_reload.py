"""New versions under a running server: it never sees half a model, and no request fails."""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from gomin_client.errors import GominError
from gomin_client.transports.base import Transport
from gomin_client.transports.registry import connect
from gomin_export import pipeline
from gomin_export.cli import app
from gomin_export.plan import ExportOptions
from tests.export.placing import use_model
from tests.support import GOLDEN, RunningServer, invoke, serving

pytestmark = [pytest.mark.server, pytest.mark.slow]

RELOAD_TIMEOUT_S = 300
INTERVAL_S = 0.1  # between requests: much shorter than the loading of a model
RECORDING = np.random.default_rng(2).uniform(-0.5, 0.5, (1, 1, 700)).astype(np.float32)


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny GAN after some more training, as it were: louder."""
    state = torch.load(GOLDEN / "gan_v3.pt", weights_only=True)
    state["conv_post.weight"] = state["conv_post.weight"] * 2
    path = tmp_path_factory.mktemp("checkpoints") / "other.pt"
    torch.save(state, path)
    return path


def louder(model: Path, path: Path) -> Path:
    """The ONNX file of that checkpoint, which the parity gate confirms, from the file of the tiny GAN."""
    proto = onnx.load(model)
    (weight,) = (tensor for tensor in proto.graph.initializer if tensor.name == "conv_post.weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 2, weight.name))
    onnx.save(proto, path)
    return path


class Traffic:
    """Calls the newest version of a model repeatedly, in a separate thread."""

    def __init__(self, server: RunningServer, mel: np.ndarray, expected: dict[int, np.ndarray]) -> None:
        self.answers: Counter[int] = Counter()  # version -> answers
        self.failures: list[str] = []
        self._mel, self._expected = mel, expected
        self._transport: Transport = connect(server.grpc)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                version = self._transport.describe("gomin_gan").versions[-1]
                audio = self._transport.infer("gomin_gan", version, {"mel": self._mel})["audio"]
            except GominError as error:
                self.failures.append(str(error))
                continue
            if not np.allclose(audio, self._expected[version], rtol=0, atol=1e-5):
                self.failures.append(f"version {version} answered something else")
            self.answers[version] += 1
            time.sleep(INTERVAL_S)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + RELOAD_TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, (self.answers, self.failures)
            time.sleep(0.05)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._transport.close()


class EnsembleTraffic:
    """Calls the ensemble repeatedly, in a separate thread, without a version, as callers without our client do."""

    def __init__(self, server: RunningServer, expected: list[np.ndarray]) -> None:
        self.answers: Counter[int] = Counter()  # index of the expected answer -> answers
        self.failures: list[str] = []
        self._client = InferenceServerClient(server.grpc.removeprefix("grpc://"))
        self._expected = expected
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        tensor = InferInput("audio", list(RECORDING.shape), "FP32")
        tensor.set_data_from_numpy(RECORDING)
        while not self._stop.is_set():
            try:
                answer = self._client.infer("gomin_reconstruct", [tensor]).as_numpy("reconstruction")
            except InferenceServerException as error:
                self.failures.append(str(error))
                continue
            same = [np.allclose(answer, expected, rtol=0, atol=1e-5) for expected in self._expected]
            if any(same):
                self.answers[same.index(True)] += 1
            else:
                self.failures.append("answered something else")
            time.sleep(INTERVAL_S)

    def __enter__(self) -> "EnsembleTraffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()


def local_reconstruction(repository: Path) -> np.ndarray:
    transport = connect(f"local:{repository}")
    try:
        return transport.infer("gomin_reconstruct", 1, {"audio": RECORDING})["reconstruction"]
    finally:
        transport.close()


def local_answer(repository: Path, version: int, mel: np.ndarray) -> np.ndarray:
    transport = connect(f"local:{repository}")
    try:
        return transport.infer("gomin_gan", version, {"mel": mel})["audio"]
    finally:
        transport.close()


def test_poll_mode_under_traffic(
    tiny_repository: Path, other_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "models"
    shutil.copytree(tiny_repository, home)
    expected: dict[int, np.ndarray] = {}
    n_mels = int(connect(f"local:{home}").describe("gomin_gan").parameters["gomin.n_mels"])
    mel = np.random.default_rng(1).uniform(0, 1, (1, n_mels, 8)).astype(np.float32)
    expected[1] = local_answer(home, 1, mel)
    elsewhere = tmp_path / "elsewhere"
    use_model(monkeypatch, louder(home / "gomin_gan/1/model.onnx", tmp_path / "louder.onnx"))
    pipeline.export("gan", other_checkpoint, elsewhere)
    expected[2] = expected[3] = local_answer(elsewhere, 1, mel)
    reconstructions = [local_reconstruction(home), local_reconstruction(elsewhere)]
    polling = ("--model-control-mode=poll", "--repository-poll-secs=1")

    with (
        serving(home, tmp_path / "log", *polling) as server,
        Traffic(server, mel, expected) as traffic,
        EnsembleTraffic(server, reconstructions) as ensemble,
    ):
        traffic.wait_for(lambda: traffic.answers[1] > 5 and ensemble.answers[0] > 5)
        second = invoke(app, "gan", "--ckpt", other_checkpoint, "--repository", home)
        traffic.wait_for(lambda: traffic.answers[2] > 5 and ensemble.answers[1] > 5)
        pipeline.export("gan", other_checkpoint, home, ExportOptions(version=3, keep=2))
        traffic.wait_for(lambda: traffic.answers[3] > 5)
        verified = invoke(app, "verify", "--url", server.grpc, "--ckpt", other_checkpoint)
        log = server.log_text

    assert second.returncode == verified.returncode == 0, verified.stdout
    assert traffic.failures == ensemble.failures == []
    assert "Poll failed" not in log
    for model in ("gomin_gan", "gomin_reconstruct"):
        assert sorted(path.name for path in (home / model).iterdir()) == ["2", "3", "config.pbtxt"]
    assert log.count("successfully loaded 'gomin_mel'") == 1  # which no export changed
    assert not np.allclose(expected[1], expected[2], rtol=0, atol=1e-3)


def test_explicit_mode(tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server loads a new version only on request."""
    home = tmp_path / "models"
    shutil.copytree(tiny_repository, home)
    explicit = ("--model-control-mode=explicit", "--load-model=gomin_gan", "--open-admin")

    with serving(home, tmp_path / "log", *explicit) as server:
        transport = connect(server.grpc)
        assert transport.describe("gomin_gan").versions == (1,)
        use_model(monkeypatch, home / "gomin_gan/1/model.onnx")
        pipeline.export("gan", GOLDEN / "gan_v3.pt", home, ExportOptions(version=2))
        assert transport.describe("gomin_gan").versions == (1,)
        InferenceServerClient(server.grpc.removeprefix("grpc://")).load_model("gomin_gan")
        assert transport.describe("gomin_gan").versions == (1, 2)
        transport.close()


def test_explicit_mode_loads_the_models_of_an_ensemble(tiny_repository: Path, tmp_path: Path) -> None:
    explicit = ("--model-control-mode=explicit", "--load-model=gomin_reconstruct", "--open-admin")

    with serving(tiny_repository, tmp_path / "log", *explicit) as server:
        verified = invoke(app, "verify", "--url", server.grpc, "--repository", tiny_repository)

    assert verified.returncode == 0, verified.stdout
    assert verified.stdout.count("cases passed") == 3


def test_a_diffusion_model_is_not_loaded_twice(repository: Path, tmp_path: Path) -> None:
    """Bytecode that Python writes beside model.py would look like a new model to a server in poll mode."""
    home = tmp_path / "models"
    for model in ("gomin_denoiser", "gomin_diffusion"):
        shutil.copytree(repository / model, home / model)
    polling = ("--model-control-mode=poll", "--repository-poll-secs=1")

    with serving(home, tmp_path / "log", *polling) as server:
        time.sleep(4)  # several polls
        log = server.log_text

    assert log.count("successfully loaded 'gomin_diffusion'") == 1
