"""Large models have their weights beside them: exported, served, verified and exported again like any other."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from gomin_client import Vocoder
from gomin_client.cli.main import app as client
from gomin_export import pipeline
from gomin_export.cli import app
from gomin_export.onnx import export as onnx_export
from tests.export.placing import use_model
from tests.support import GOLDEN, assert_fails, invoke, serving

pytestmark = pytest.mark.long

CHECKPOINT = GOLDEN / "gan_v3.pt"


@pytest.fixture(scope="module")
def large(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the tiny GAN, whose graph is written as that of a large model."""
    home = tmp_path_factory.mktemp("large") / "models"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_export, "MOST_WEIGHTS_INSIDE", 100_000)
        use_model(patch, tiny_repository / "gomin_gan/1/model.onnx")
        pipeline.export("gan", CHECKPOINT, home)
    return home


@pytest.mark.server
def test_answers_are_those_of_a_single_file(large: Path, tiny_repository: Path, tmp_path: Path) -> None:
    files = large / "gomin_gan/1"
    weights = onnx.load(files / "model.onnx", load_external_data=False).graph.initializer

    assert {path.name for path in files.iterdir()} == {
        *("model.onnx", "model.onnx.data", "parity.json", "reference.npz")
    }
    assert (files / "model.onnx").stat().st_size < 200_000 < (files / "model.onnx.data").stat().st_size
    assert {entry.value for tensor in weights for entry in tensor.external_data if entry.key == "location"} == {
        "model.onnx.data"
    }
    # a server may be another user
    assert (files / "model.onnx.data").stat().st_mode == (files / "model.onnx").stat().st_mode
    with Vocoder(f"local:{tiny_repository}") as vocoder:
        mel = np.random.default_rng(0).uniform(0, 1, (vocoder.contract.mel.n_mels, 20)).astype(np.float32)
        expected = vocoder.synthesize(mel)
    with serving(large, tmp_path / "log") as server:
        for url in (f"local:{large}", server.grpc):
            with Vocoder(url) as vocoder:
                np.testing.assert_allclose(vocoder.synthesize(mel), expected, rtol=0, atol=1e-6)


def test_the_same_again_is_a_no_op(
    large: Path, tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the current directory has a file of that name."""
    use_model(monkeypatch, tiny_repository / "gomin_gan/1/model.onnx")
    monkeypatch.setattr(onnx_export, "MOST_WEIGHTS_INSIDE", 100_000)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx.data").write_text("of something else")
    other = tmp_path / "models"
    pipeline.export("gan", CHECKPOINT, other)

    for name in ("model.onnx", "model.onnx.data"):
        assert (other / "gomin_gan/1" / name).read_bytes() == (large / "gomin_gan/1" / name).read_bytes()
    assert pipeline.export("gan", CHECKPOINT, other).plan.exists


def test_weights_that_were_changed_or_lost_are_noticed(large: Path, tmp_path: Path) -> None:
    shutil.copytree(large, tmp_path / "models")
    weights = tmp_path / "models/gomin_gan/1/model.onnx.data"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)

    changed = invoke(app, "verify", "--repository", tmp_path / "models")
    weights.unlink()
    missing = invoke(app, "verify", "--repository", tmp_path / "models")
    lost = invoke(client, "bench", "--url", f"local:{tmp_path / 'models'}", "--duration", "0")

    assert changed.returncode == 4
    assert "model.onnx.data" in changed.stdout + changed.stderr
    assert missing.returncode != 0
    assert "model.onnx.data" in missing.stdout + missing.stderr
    assert_fails(lost, 3, "model.onnx.data")
