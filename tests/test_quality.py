"""The program of docs/quality.md: Griffin-Lim on GOMIN's mels, the measures, and the program on the shared models."""

from __future__ import annotations

import json
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from benchmarks import quality
from benchmarks.griffin_lim import griffin_lim, magnitudes, mel_power
from benchmarks.quality import Excerpt, Measured, Pitch, compare_pitch, pitch
from gomin_client.mel.features import MelConfig, Wave, from_power, mel_filters, mel_spectrogram
from gomin_client.tools.compare import Distance, distance
from tests.support import EXAMPLES, RunningServer

CONFIG = MelConfig()


@pytest.fixture(scope="module")
def wave() -> Wave:
    """A third of a second: a tone with overtones that gets louder, and noise."""
    time = np.arange(8000) / CONFIG.sample_rate
    tone = sum(np.sin(2 * np.pi * 220 * overtone * time) / overtone for overtone in range(1, 20))
    return (0.5 * time * tone + np.random.default_rng(0).normal(0, 0.01, len(time))).astype(np.float32)


@pytest.mark.parametrize("config", [CONFIG, MelConfig(win_length=800, hop_length=200)])
def test_the_power_of_a_mel_is_that_of_librosas_stft(config: MelConfig, wave: Wave) -> None:
    win_length, hop_length = config.win_length, config.hop_length
    spectrum = librosa.stft(wave, n_fft=1024, win_length=win_length, hop_length=hop_length, pad_mode="constant")
    directly = librosa.filters.mel(sr=24000, n_fft=1024) @ np.abs(spectrum) ** 2

    power = mel_power(mel_spectrogram(wave, config)) * np.sum(librosa.filters.get_window("hann", win_length) ** 2)

    np.testing.assert_allclose(power, directly, rtol=1e-3, atol=1e-6)


def test_the_magnitudes_have_that_mel(wave: Wave) -> None:
    mel = mel_spectrogram(wave, CONFIG)

    found = magnitudes(mel, CONFIG)

    power = mel_filters(CONFIG) @ found**2 / np.sum(librosa.filters.get_window("hann", 1024) ** 2)
    np.testing.assert_allclose(from_power(power), mel, rtol=0, atol=0.03)
    assert np.abs(from_power(power) - mel).mean() < 1e-4  # 0.01 dB
    assert magnitudes(np.zeros((128, 2), np.float32), CONFIG).max() < 1e-6  # silence


def test_griffin_lim_comes_nearer_with_iterations(wave: Wave) -> None:
    mel = mel_spectrogram(wave, CONFIG)

    begun, made = (griffin_lim(mel, len(wave), CONFIG, iterations) for iterations in (1, 32))

    before, after = (distance(wave, each, CONFIG) for each in (begun, made))
    assert made.shape == wave.shape
    assert after.log_mel_l1_db < 1 < 2 < before.log_mel_l1_db
    assert after.spectral_convergence < 0.5 * before.spectral_convergence
    np.testing.assert_array_equal(griffin_lim(mel, len(wave), CONFIG), made)


def test_pitch() -> None:
    time = np.arange(6000) / CONFIG.sample_rate
    low, high = (pitch(np.sin(2 * np.pi * hertz * time).astype(np.float32), CONFIG) for hertz in (200, 300))
    silence = pitch(np.zeros(6000, np.float32), CONFIG)
    assert len(low) == len(silence) == CONFIG.frames(6000)
    assert np.isnan(silence).all()

    fifth = compare_pitch(low, high)
    lost = compare_pitch(low, silence)

    assert fifth.both + fifth.one <= len(low)
    assert fifth.both > len(low) // 2
    assert np.median(fifth.errors) == pytest.approx(1200 * np.log2(1.5), abs=15)  # pYIN's bins are 10 cents wide
    assert (lost.both, lost.one) == (0, int((~np.isnan(low)).sum()))
    assert lost.one > 0


def test_the_table() -> None:
    def measured(seconds: float, value: float, both: int, one: int, cents: list[float]) -> Measured:
        compared = Distance(value, value / 10, value / 100, 0.0, seconds, 0)
        return Measured(Path("a.wav"), compared, Pitch(both, one, np.array(cents)))

    rows = quality.table(
        {
            "A": [measured(1, 10, 3, 1, [10, 20, 30]), measured(3, 2, 1, 0, [50])],
            "B": [measured(1, 1, 0, 2, [])],
            "C": [measured(1, 1, 0, 0, [])],
        }
    ).splitlines()

    assert rows[2:] == [
        "| A | 4.00 | 0.400 | 0.040 | 0.89 | 25 |",  # means over seconds; 2 · 4 / (2 · 4 + 1); median of four frames
        "| B | 1.00 | 0.100 | 0.010 | 0.00 | – |",
        "| C | 1.00 | 0.100 | 0.010 | – | – |",
    ]
    assert all(row.count("|") == rows[0].count("|") for row in rows)


def test_models_of_a_server(server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", np.random.default_rng(ord(name)).uniform(-0.5, 0.5, 9000), 24000)
    soundfile.write(tmp_path / "silence.wav", np.zeros(9000), 24000)
    options = ["--seconds", "0.1", "--most", "2", "--json", str(tmp_path / "all.json")]

    quality.main([f"noise={tmp_path}/[ac].wav", f"all={tmp_path}", "--url", server.grpc, "--models", "gan", *options])

    printed = capsys.readouterr()
    title, empty, _, _, *rows = printed.out.splitlines()[:6]
    assert (title, empty) == ("**noise** (2 recordings, 0.2 s)", "")
    assert "**all** (1 recording, 0.1 s)" in printed.out  # the first and the last, which is silent
    values = {name: float(value) for name, value, *_ in (row.strip("| ").split(" | ") for row in rows)}
    assert list(values) == ["GAN", "Griffin-Lim, 32 iterations"]
    assert 0 < values["Griffin-Lim, 32 iterations"] < values["GAN"]
    each = json.loads((tmp_path / "all.json").read_text())["noise"]["GAN"]
    assert [Path(one["recording"]).name for one in each] == ["a.wav", "c.wav"]
    assert np.mean([one["log_mel_l1_db"] for one in each]) == pytest.approx(values["GAN"], abs=0.01)


def test_the_chains_of_a_repository(repository: Path) -> None:
    recording = Excerpt(Path("a.wav"), np.random.default_rng(0).uniform(-0.5, 0.5, 1100).astype(np.float32))
    with quality.opened(f"local:{repository}", ["diffusion"]) as (vocoders, config):
        first, again = (quality.measure([recording], vocoders, config) for _ in range(2))

    assert list(vocoders) == ["diffusion, ddpm, 50 steps", "diffusion, fast, 6 steps", "Griffin-Lim, 32 iterations"]
    assert quality.table(first) == quality.table(again)
    distances = [measured[0].distance.log_mel_l1_db for measured in first.values()]
    assert len(set(distances)) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "local:models", "--gan-ckpt", "a.pt"], "--url has models of its own"),
        (["--models", "gan"], "--models are those of --url: give it too"),
        (["--url", "local:models", "--models", "gan,vocos"], "--models gan,vocos: expected gan or diffusion"),
        (["--seconds", "0"], "--seconds 0: expected more than 0"),
        (["--most", "-1"], "--most -1: expected more than 0"),
        ([], "missing.wav: cannot be read: No such file"),
    ],
)
def test_what_cannot_be_measured(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        quality.main(["missing.wav", *arguments])

    assert ended.value.code != 0
    assert words in capsys.readouterr().err


def test_models_with_different_mels(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quality.main([str(EXAMPLES[0]), "--url", f"local:{repository}"])

    words = "have different mel settings: measure them one by one, with --models, or with one checkpoint at a time"
    assert words in capsys.readouterr().err
