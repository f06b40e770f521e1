"""The program of docs/quality.md: its measures, and Griffin-Lim on GOMIN's mels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest

from benchmarks.griffin_lim import griffin_lim, magnitudes
from gomin_client.mel.features import MelConfig, mel_spectrogram
from gomin_client.tools.compare import distance, read_mono
from tests.support import EXAMPLES, ROOT


@pytest.mark.parametrize("config", [MelConfig(), MelConfig(win_length=800, hop_length=200)])
def test_the_scale_of_a_mel_is_undone(config: MelConfig) -> None:
    wave = read_mono(EXAMPLES[-1], config)[:24000]
    mel = mel_spectrogram(wave, config)

    found = magnitudes(mel, config)

    true = np.abs(
        librosa.stft(
            wave, n_fft=config.n_fft, hop_length=config.hop_length, win_length=config.win_length, pad_mode="constant"
        )
    )
    assert found.shape == true.shape
    assert found.sum() / true.sum() == pytest.approx(1, abs=0.1)
    # bands as wide as one bin are known exactly, but for the least squares
    assert np.corrcoef(found[:20].ravel(), true[:20].ravel())[0, 1] > 0.9


def test_more_iterations_come_nearer() -> None:
    config = MelConfig()
    wave = read_mono(EXAMPLES[-1], config)[:24000]
    mel = mel_spectrogram(wave, config)

    few, many = (griffin_lim(mel, config, len(wave), iterations) for iterations in (1, 32))

    assert few.shape == wave.shape
    assert distance(wave, many, config).log_mel_l1_db < 0.7 * distance(wave, few, config).log_mel_l1_db
    assert np.array_equal(many, griffin_lim(mel, config, len(wave), 32))


def test_the_program_prints_a_table_and_each_distance(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "crow.flac").symlink_to(EXAMPLES[0])
    options = ["--gan", "none", "--diffusion", "none", "--seconds", "0.3", "--json", str(tmp_path / "all.jsonl")]
    command = [sys.executable, "-m", "benchmarks.quality", *options, f"one={tmp_path / 'set'}"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    (line,) = (tmp_path / "all.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert found["seconds"] == 0.3
    assert "**one** (1 recordings, 0 s)" in done.stdout
    assert f"| Griffin-Lim, 32 iterations | {found['log_mel_l1_db']:.2f} |" in done.stdout
