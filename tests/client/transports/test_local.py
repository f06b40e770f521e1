"""In-process: what is read when, and with which settings."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from gomin_client import Vocoder
from gomin_client.contract import repository as model_repository
from gomin_client.errors import ContractError, UnknownModelError
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
        with pytest.raises(UnknownModelError, match="no models at all"):
            transport.describe("gomin_gan")
        np.testing.assert_array_equal(transport.infer("gomin_gan", 1, mel)["audio"], first)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_configs_threads_are_used(home: Path, threads: str) -> None:
    config = home / "gomin_gan/config.pbtxt"
    config.write_text(config.read_text().replace(f'{INTRA_OP}"0"', f'{INTRA_OP}"{threads}"'))
    with LocalTransport(home) as transport:
        assert transport._open("gomin_gan", 1).session.get_session_options().intra_op_num_threads == int(threads)

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
