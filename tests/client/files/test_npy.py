"""Mels in .npy files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from gomin_client import Vocoder
from gomin_client.cli.main import app
from gomin_client.files import mels as mel_files
from gomin_client.mel.features import MelConfig
from tests.support import EXAMPLES, invoke


def blocks_of(array: NDArray[np.float32], size: int) -> Iterator[NDArray[np.float32]]:
    for first in range(0, array.shape[-1], size):
        yield array[..., first : first + size]


def test_mels_of_all_formats_are_the_same(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    wave, rate = soundfile.read(EXAMPLES[0], dtype="float32")
    soundfile.write(tmp_path / "a.wav", np.stack([wave, wave[::-1]], axis=1), rate, subtype="FLOAT")
    for extension in ("npz", "npy", "pt"):
        result = invoke(app, "analyze", tmp_path / "a.wav", "-o", tmp_path / f"a.{extension}", "--channels", "all")
        assert result.returncode == 0, result.stderr
    mels = [mel_files.read(tmp_path / f"a.{extension}").mel for extension in ("npz", "npy", "pt")]

    assert isinstance(mels[1], np.memmap)
    for mel in mels[1:]:
        np.testing.assert_array_equal(mel, mels[0])
    assert mels[0].shape[0] == 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("memory", [64, 1000, 1 << 25])
def test_npy_is_turned_round_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, memory: int
) -> None:
    monkeypatch.setattr("gomin_client.files.npy._MEMORY", memory)
    mel = np.random.default_rng(0).uniform(0, 1, (channels, 5, 37)).astype(np.float32)

    mel_files.write_blocks(tmp_path / "a.npy", blocks_of(mel, 7), MelConfig(n_mels=5))

    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), mel[0] if channels == 1 else mel)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "<i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_other_numbers(repository: Path, tmp_path: Path, dtype: str, order: str) -> None:
    mel = np.random.default_rng(0).integers(0, 2, (128, 5)).astype(dtype, order=order)
    np.save(tmp_path / "a.npy", mel)

    result = invoke(app, "synthesize", tmp_path / "a.npy", "--url", f"local:{repository}")

    assert result.returncode == 0, result.stderr
    with Vocoder(f"local:{repository}") as vocoder:
        expected = vocoder.synthesize(mel.astype(np.float32))
    made, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-4)
