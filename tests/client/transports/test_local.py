"""In-process: what is read when, and with which settings."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from gomin_client import Vocoder
from gomin_client.contract import repository as model_repository
from gomin_client.errors import ContractError, UnknownModelError, UsageError
from gomin_client.transports import local, sessions
from gomin_client.transports.local import LocalTransport

INTRA_OP = 'key: "intra_op_thread_count" value: { string_value: '


@pytest.fixture
def home(tiny_repository: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_repository, tmp_path / "models")
    return tmp_path / "models"


def test_a_model_is_read_once_and_described_afresh(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    parse = model_repository.parse_config
    monkeypatch.setattr(model_repository, "parse_config", lambda path: (read.append(path), parse(path))[1])
    with LocalTransport(home) as transport:
        n_mels = int(transport.describe("gomin_gan").parameters["gomin.n_mels"])
        read.clear()
        mel = {"mel": np.zeros((1, n_mels, 5), np.float32)}
        first = transport.infer("gomin_gan", 1, mel)["audio"]
        config = home / "gomin_gan" / "config.pbtxt"
        config.write_text(config.read_text() + 'parameters { key: "new" value: { string_value: "1" } }')
        for _ in range(3):
            np.testing.assert_array_equal(transport.infer("gomin_gan", 1, mel)["audio"], first)
        assert len(read) == 1

        assert transport.describe("gomin_gan").parameters["new"] == "1"
        shutil.rmtree(home / "gomin_gan")
        with pytest.raises(UnknownModelError, match="has no model gomin_gan; it has gomin_mel, gomin_reconstruct"):
            transport.describe("gomin_gan")
        np.testing.assert_array_equal(transport.infer("gomin_gan", 1, mel)["audio"], first)


def test_onnxruntime_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"needs the package onnxruntime: pip install 'gomin-triton\[local\]', or"):
        Vocoder(f"local:{tmp_path}")


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_configs_threads_are_used(home: Path, threads: str) -> None:
    config = home / "gomin_gan/config.pbtxt"
    config.write_text(config.read_text().replace(f'{INTRA_OP}"0"', f'{INTRA_OP}"{threads}"'))
    with LocalTransport(home) as transport:
        session = transport._open("gomin_gan", 1).session
        assert session is not None
        options = session.onnx.get_session_options()
        assert options.intra_op_num_threads == int(threads)
        assert options.get_session_config_entry(sessions.SPIN_DURATION) == "100"

    config.write_text(config.read_text().replace(f'{INTRA_OP}"{threads}"', f'{INTRA_OP}"many"'))
    with LocalTransport(home) as transport, pytest.raises(ContractError, match="'many', not a number"):
        transport._open("gomin_gan", 1)


def test_more_frames_than_the_config_allows_are_refused(home: Path) -> None:
    config = home / "gomin_gan/config.pbtxt"
    config.write_text(re.sub(r'(max_frames" value: { string_value: )"\d+"', r'\1"90"', config.read_text()))
    with LocalTransport(home) as transport:
        for shape in ((1, 128, 91), (2, 128, 46)):
            with pytest.raises(ContractError, match=f"at most 90 frames in one request, this one has {shape[0]} ×"):
                transport.infer("gomin_gan", 1, {"mel": np.zeros(shape, np.float32)})
        assert transport.infer("gomin_gan", 1, {"mel": np.zeros((1, 128, 90), np.float32)})["audio"].size == 90 * 256
    with Vocoder(home) as vocoder:
        assert vocoder.window == 90
        assert vocoder.synthesize(np.zeros((2, 128, 200), np.float32)).shape == (2, 200 * 256)


class TestEnsemble:
    """As on a server."""

    AUDIO = np.random.default_rng(0).uniform(-1, 1, (2, 1, 700)).astype(np.float32)

    def test_runs_its_steps(self, repository: Path) -> None:
        with LocalTransport(repository) as transport:
            answer = transport.infer("gomin_reconstruct", 1, {"audio": self.AUDIO})

        assert list(answer) == ["reconstruction"]
        with Vocoder(f"local:{repository}") as vocoder:
            expected = vocoder.reconstruct(self.AUDIO[:, 0], 24000, trim=False)
        np.testing.assert_array_equal(answer["reconstruction"][:, 0], expected)

    def test_gives_request_parameters_to_the_chain(self, repository: Path) -> None:
        seed = np.full((2, 1), 3, np.uint64)
        chain: dict[str, str | int | float] = {"sampler": "ddim", "steps": 2}
        with LocalTransport(repository) as transport:
            inputs = {"audio": self.AUDIO, "seed": seed}
            answer = transport.infer("gomin_reconstruct_diffusion", 1, inputs, parameters=chain)
            with pytest.raises(ContractError, match="input seed of the ensemble is missing"):
                transport.infer("gomin_reconstruct_diffusion", 1, {"audio": self.AUDIO})
            with pytest.raises(ContractError, match="gomin_gan takes no request parameters, such as steps"):
                transport.infer("gomin_reconstruct", 1, {"audio": self.AUDIO}, parameters={"steps": 2})

        with Vocoder(f"local:{repository}", model="diffusion", sampler="ddim", steps=2) as vocoder:
            expected = vocoder.reconstruct(self.AUDIO[:, 0], 24000, trim=False, seed=3)
        np.testing.assert_array_equal(answer["reconstruction"][:, 0], expected)

    @pytest.mark.parametrize(
        ("audio", "words"),
        [
            (np.zeros((1, 1, 0), np.float32), "model gomin_mel: .*audio has no samples"),
            (np.full((1, 1, 9), np.nan, np.float32), "model gomin_mel: .*audio has samples that are NaN or infinite"),
            (np.zeros((16, 1, 256 * 9000), np.float32), "model gomin_mel takes at most .* this one has 16 × 9001"),
        ],
    )
    def test_refuses_audio_that_its_models_refuse(self, repository: Path, audio: np.ndarray, words: str) -> None:  # type: ignore[type-arg]
        with LocalTransport(repository) as transport, pytest.raises(ContractError, match=words):
            transport.infer("gomin_reconstruct", 1, {"audio": audio})

    def test_refuses_audio_that_is_too_long_for_its_vocoder(self, home: Path) -> None:
        config = home / "gomin_gan/config.pbtxt"
        config.write_text(re.sub(r'(max_frames" value: { string_value: )"\d+"', r'\1"20"', config.read_text()))
        audio = np.zeros((2, 1, 256 * 10), np.float32)

        with LocalTransport(home) as transport, pytest.raises(ContractError, match="gomin_gan takes at most 20 frames"):
            transport.infer("gomin_reconstruct", 1, {"audio": audio})

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            ("model_version: -1", "model_version: 1", "its step gomin_mel has model_version 1"),
            ("ensemble_scheduling", "garbage", "cannot be read as a Triton model configuration"),
        ],
    )
    def test_with_another_config_is_refused(self, home: Path, old: str, new: str, words: str) -> None:
        config = home / "gomin_reconstruct/config.pbtxt"
        config.write_text(config.read_text().replace(old, new))

        with LocalTransport(home) as transport, pytest.raises(ContractError, match=words):
            transport.infer("gomin_reconstruct", 1, {"audio": self.AUDIO})

    def test_is_not_a_model_for_the_client(self, repository: Path) -> None:
        for model, instead in (("gomin_reconstruct", "gan"), ("gomin_reconstruct_diffusion", "diffusion")):
            with pytest.raises(ContractError, match=f"{model} takes audio and .*: choose {instead}$"):
                Vocoder(f"local:{repository}", model=model)
        with pytest.raises(ContractError, match="gomin_mel is of kind mel: it does not make audio from a mel"):
            Vocoder(f"local:{repository}", model="gomin_mel")
