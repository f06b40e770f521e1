import numpy as np
import pytest

from gomin_client.mel.features import MelConfig, mel_spectrogram
from tests.support import golden

VECTORS = golden("mel.npz")
NAMES = sorted(name.removeprefix("wave_") for name in VECTORS if name.startswith("wave_"))


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_original(name: str) -> None:
    expected = VECTORS[f"mel_{name}"]

    mel = mel_spectrogram(VECTORS[f"wave_{name}"])

    assert mel.dtype == np.float32
    assert mel.shape == expected.shape
    # near the floor the original's values carry the rounding of its float32 transform
    tolerance = np.where(expected >= 0.3, 1e-4, 1e-3)
    assert (np.abs(mel - expected) <= tolerance).all()


def test_all_cases_are_there() -> None:
    assert {"silence", "one", "loud", "oddlen", "short", "impulse"} <= set(NAMES)


def test_a_window_shorter_than_the_transform_is_centred() -> None:
    config = MelConfig(win_length=600)
    impulse = np.zeros(4096, np.float32)
    impulse[2048] = 1

    mel = mel_spectrogram(impulse, config)

    assert config.n_fft == 1024
    np.testing.assert_allclose(mel[:, 7], mel[:, 9], rtol=0, atol=1e-6)  # frame 8 is centred on the impulse
    assert (mel[:, 8] > mel[:, 7]).all()
    assert not mel[:, 6].any()


def test_long_recordings_are_the_same_as_short_ones() -> None:
    rng = np.random.default_rng(0)
    wave = rng.standard_normal(256 * 5000).astype(np.float32) * 0.1

    whole = mel_spectrogram(wave)
    part = mel_spectrogram(wave[256 * 2000 : 256 * 3000])

    np.testing.assert_allclose(whole[:, 2010:2990], part[:, 10:990], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "wave", [np.zeros(0), np.zeros((2, 5)), np.array([0.0, np.nan]), np.array([np.inf, 0.0])], ids=str
)
def test_what_has_no_mel_is_refused(wave: np.ndarray) -> None:
    with pytest.raises(ValueError, match="waveform"):
        mel_spectrogram(wave)
