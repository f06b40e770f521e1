"""Files of any length: memory, and mels that do not depend on blocks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import soundfile

from gomin_client.cli.main import app
from gomin_client.mel.features import mel_spectrogram
from tests.support import BIN, invoke


def test_memory_does_not_grow(tiny_repository: Path, tmp_path: Path) -> None:
    """Ten minutes of audio are 58 MB as float32, and in most other forms on the way."""
    peaks = []
    for minutes in (0.5, 10):
        source = tmp_path / "a.flac"
        soundfile.write(source, np.zeros(int(minutes * 60 * 8000), np.float32), 8000)
        command = [BIN / "gomin-client", "reconstruct", source, "-o", tmp_path / "b.wav"]
        process = subprocess.Popen([*command, "--url", f"local:{tiny_repository}"], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        peaks.append(usage.ru_maxrss / 1024)
    assert peaks[1] - peaks[0] < 40, f"MiB: {peaks}"


def test_the_mel_of_a_file_does_not_depend_on_how_it_is_read(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, 300_000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 24000, subtype="FLOAT")

    assert invoke(app, "analyze", tmp_path / "a.wav", "-o", tmp_path / "a.npy").returncode == 0

    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), mel_spectrogram(wave), rtol=0, atol=1e-5)
