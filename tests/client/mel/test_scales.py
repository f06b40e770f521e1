"""Mels that are not GOMIN's: recognised, converted where that is exact, and no false alarm."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gomin_client import Vocoder
from gomin_client.cli.main import app
from gomin_client.errors import ContractError, SuspiciousMelError, UsageError
from gomin_client.files import mels as mel_files
from gomin_client.mel import scales
from gomin_client.mel.features import MelConfig, mel_spectrogram
from gomin_client.mel.scales import CONVENTIONS, MelReading, suspicion, to_gomin, window_energy
from tests.support import EXAMPLES, assert_fails, invoke


def recordings() -> list[NDArray[np.float32]]:
    return [librosa.load(path, sr=24000, mono=True)[0] for path in EXAMPLES]


def librosa_power(wave: NDArray[np.float32]) -> NDArray[np.float64]:
    """As librosa's users make it: the STFT is not divided by the window's energy."""
    return np.asarray(
        librosa.feature.melspectrogram(
            y=wave.astype(np.float64), sr=24000, n_fft=1024, hop_length=256, n_mels=128, center=True,
            pad_mode="constant", power=2.0, htk=False, norm="slaney",
        )
    )  # fmt: skip


def hifigan(wave: NDArray[np.float32]) -> NDArray[np.float64]:
    """Bands sum amplitudes; natural logarithm, clamped at 1e-5."""
    amplitude = librosa.feature.melspectrogram(y=wave, sr=24000, n_fft=1024, hop_length=256, n_mels=128, power=1.0)
    return np.asarray(np.log(np.maximum(amplitude, 1e-5)))


FROM_POWER = {
    "power": lambda power: power,
    "amplitude": np.sqrt,
    "db": lambda power: 10 * np.log10(np.maximum(power, 1e-10)),
    "ln-power": lambda power: np.log(np.maximum(power, 1e-10)),
    "ln-amplitude": lambda power: np.log(np.maximum(np.sqrt(power), 1e-5)),
    "log10-power": lambda power: np.log10(np.maximum(power, 1e-10)),
    "log10-amplitude": lambda power: np.log10(np.maximum(np.sqrt(power), 1e-5)),
}


class TestConversion:
    def test_all_conventions_are_tested(self) -> None:
        assert {"gomin", *FROM_POWER} == set(CONVENTIONS)

    @pytest.mark.parametrize("name", sorted(FROM_POWER))
    @pytest.mark.parametrize("normalized", [True, False])
    def test_equals_the_mel_of_the_recording(self, name: str, normalized: bool) -> None:
        for wave in recordings():
            expected = mel_spectrogram(wave)
            power = librosa_power(wave) / (window_energy(MelConfig()) if normalized else 1)

            converted = to_gomin(FROM_POWER[name](power), name, stft_normalized=normalized)

            loud = expected > 0.3  # below, the floors of the conventions differ
            assert loud.any()
            np.testing.assert_allclose(converted[loud], expected[loud], rtol=0, atol=1e-5)
            assert converted.dtype == np.float32
            assert suspicion(converted) is None

    @pytest.mark.parametrize("length", [2, 3, 800, 1024])
    def test_window_energy(self, length: int) -> None:
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)

        assert window_energy(MelConfig(win_length=length)) == pytest.approx(np.sum(window**2))

    def test_what_cannot_be_of_a_convention(self) -> None:
        with pytest.raises(ContractError, match="power is never negative"):
            to_gomin(np.array([-1.0]), "power")
        with pytest.raises(ContractError, match="too large to be ln-power"):
            to_gomin(np.array([1000.0]), "ln-power")
        with pytest.raises(UsageError, match="expected one of gomin, power"):
            to_gomin(np.zeros(1), "bark")
        with pytest.raises(UsageError, match="`convention=…`"):
            MelReading(stft_normalized=False)


class TestSuspicion:
    """`analyze` makes it: no alarm. Something else makes it: alarm, with the right words."""

    @settings(max_examples=150, deadline=None)
    @given(
        kind=st.sampled_from(["silence", "tone", "noise", "clipped", "clicks", "sweep", "offset", "fade"]),
        level=st.sampled_from([1e-9, 1e-6, 1e-4, 1e-2, 0.5, 1.0, 4.0, 32768.0, 2.0**31]),
        samples=st.integers(1, 6000),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_no_false_alarm(self, kind: str, level: float, samples: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        time = np.arange(samples) / 24000
        frequency = random.uniform(0, 12000)
        wave = {
            "silence": np.zeros(samples),
            "tone": np.sin(2 * np.pi * frequency * time),
            "noise": random.normal(size=samples),
            "clipped": np.clip(10 * random.normal(size=samples), -1, 1),
            "clicks": (random.random(samples) < 0.01).astype(float),
            "sweep": np.sin(2 * np.pi * frequency * time**2),
            "offset": np.ones(samples),
            "fade": random.normal(size=samples) * np.exp(-np.arange(samples) / 100),
        }[kind]

        assert suspicion(mel_spectrogram((level * wave).astype(np.float32))) is None

    def test_no_false_alarm_on_recordings_and_predictions(self) -> None:
        random = np.random.default_rng(0)
        for wave in recordings():
            mel = mel_spectrogram(wave)
            assert suspicion(mel) is None
            assert suspicion(mel + random.normal(0, 0.05, mel.shape)) is None, "a network's prediction"

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("db", "decibels"),
            ("ln-power", "natural logarithm of power"),
            ("ln-amplitude", "natural logarithm of amplitude"),
            ("log10-power", "log10 of power"),
            ("log10-amplitude", "log10 of amplitude"),
        ],
    )
    @pytest.mark.parametrize("normalized", [True, False])
    def test_other_conventions_are_recognised(self, name: str, words: str, normalized: bool) -> None:
        silence = np.zeros((128, 4))  # most recordings have some: it is clamped
        for wave in recordings():
            power = librosa_power(wave) / (window_energy(MelConfig()) if normalized else 1)
            found = suspicion(FROM_POWER[name](np.concatenate([power, silence], axis=1)))
            assert found is not None
            assert words in found
            assert f'`to_gomin(mel, "{name}")`' in found
            assert "`force=True`" in found

    @pytest.mark.parametrize("name", ["db", "ln-power", "ln-amplitude", "log10-power", "log10-amplitude"])
    def test_without_any_silence_they_still_stop(self, name: str) -> None:
        for wave in recordings():
            assert suspicion(FROM_POWER[name](librosa_power(wave) / window_energy(MelConfig()))) is not None

    def test_hifigan_cannot_be_converted(self) -> None:
        for wave in recordings():
            found = suspicion(hifigan(wave))
            assert found is not None
            assert "Bands that sum amplitudes, as in HiFi-GAN and vocos, cannot be converted" in found

    def test_normalized_and_linear(self) -> None:
        for wave in recordings():
            mel = hifigan(wave)
            assert "normalized to a mean of 0" in str(suspicion((mel - mean_of(mel)) / mel.std()))
            assert "normalized to a mean of 0" in str(suspicion(mel_spectrogram(wave) - mean_of(mel_spectrogram(wave))))
            assert "decibels above a floor" in str(suspicion(librosa.power_to_db(librosa_power(wave)) + 80))
        assert "without a logarithm" in str(suspicion(librosa_power(recordings()[0])))

    @pytest.mark.parametrize(
        ("shape", "words"),
        [
            ((40, 128), "`mel.T`"),
            ((1, 40, 128), "`mel.T`"),
            ((80, 40), "80 bands are what HiFi-GAN"),
            ((40, 80), "80 bands are what HiFi-GAN"),
            ((2, 100, 40), "100 bands are what vocos"),
        ],
    )
    def test_shapes(self, shape: tuple[int, ...], words: str) -> None:
        assert words in scales.shape_hint(shape, 128)

    def test_shapes_of_which_nothing_can_be_said(self) -> None:
        assert scales.shape_hint((64, 40), 128) == ""
        assert scales.shape_hint((5,), 128) == ""


def mean_of(mel: NDArray[np.floating]) -> float:
    return float(mel.mean())


class TestVocoder:
    def test_doubts_and_can_be_forced(self, repository: Path) -> None:
        with Vocoder(f"local:{repository}") as vocoder:
            odd = np.full((128, 5), -11.5, np.float32)
            with pytest.raises(SuspiciousMelError, match="natural logarithm of amplitude"):
                vocoder.synthesize(odd)
            assert vocoder.synthesize(odd, force=True).shape == (1280,)
            with pytest.raises(ContractError, match=r"`mel\.T`"):
                vocoder.synthesize(np.zeros((5, 128), np.float32))
            loud = np.full(2400, 1e30, np.float32)
            assert len(vocoder.reconstruct(loud, 24000, force=True)) == 2400  # its own mels are beyond doubt


class TestCommandLine:
    def test_stops_converts_and_is_forced(self, repository: Path, tmp_path: Path) -> None:
        wave = recordings()[0]
        mel = tmp_path / "a.npy"
        np.save(mel, librosa.power_to_db(librosa_power(wave), top_db=None).T)
        local = ("--url", f"local:{repository}", "--subtype", "float")

        assert_fails(invoke(app, "synthesize", mel, *local), 5, "a.npy", "looks transposed: --transpose")
        turned = ("--transpose", *local)
        assert_fails(invoke(app, "synthesize", mel, *turned), 5, "a.npy", "It looks like decibels", "--force")
        assert not (tmp_path / "a.wav").exists()
        converted = invoke(app, "synthesize", mel, *turned, "--mel-convention", "db", "--stft-norm", "none"
        )  # fmt: skip
        assert converted.returncode == 0, converted.stderr
        made, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
        forced = invoke(app, "synthesize", mel, "-o", tmp_path / "forced.wav", *turned, "--force")
        assert forced.returncode == 0, forced.stderr

        with Vocoder(f"local:{repository}") as vocoder:
            expected = vocoder.reconstruct(wave, 24000, trim=False)
        assert len(made) == len(expected)
        assert np.abs(made - expected).max() < 1e-3  # the floors differ
        assert np.abs(soundfile.read(tmp_path / "forced.wav")[0] - expected).max() > 0.01

    def test_one_of_many(self, repository: Path, tmp_path: Path) -> None:
        np.save(tmp_path / "good.npy", np.zeros((128, 4), np.float32))
        np.save(tmp_path / "odd.npy", np.full((128, 4), -5, np.float32))

        result = invoke(app, "synthesize", tmp_path, "--url", f"local:{repository}")

        assert result.returncode == 1
        assert "odd.npy: mel does not look like a GOMIN mel" in result.stderr
        assert (tmp_path / "good.wav").exists()
        assert not (tmp_path / "odd.wav").exists()

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--mel-convention", "bark"], "expected one of gomin, power"),
            (["--stft-norm", "maybe", "--mel-convention", "db"], "expected window or none"),
            (["--stft-norm", "none"], "--mel-convention"),
        ],
    )
    def test_options_that_make_no_sense(self, tmp_path: Path, options: list[str], words: str) -> None:
        np.save(tmp_path / "a.npy", np.zeros((128, 4), np.float32))

        assert_fails(invoke(app, "synthesize", tmp_path / "a.npy", *options), 2, words)

    def test_options_for_mels_without_any(self, tmp_path: Path) -> None:
        words = ("convert", "-i", EXAMPLES[0], "-o", tmp_path / "a.wav", "--transpose")
        assert_fails(invoke(app, *words), 2, "there are none")

    def test_an_npz_that_lies_on_its_side(self, tmp_path: Path, repository: Path) -> None:
        config = MelConfig()
        mel_files.write(tmp_path / "a.npz", np.zeros((1, 40, 128), np.float32), config)

        assert_fails(invoke(app, "synthesize", tmp_path / "a.npz", "--url", f"local:{repository}"), 1, "--transpose")
        result = invoke(app, "synthesize", tmp_path / "a.npz", "--url", f"local:{repository}", "--transpose")
        assert result.returncode == 0, result.stderr
        assert soundfile.info(tmp_path / "a.wav").frames == 40 * 256
