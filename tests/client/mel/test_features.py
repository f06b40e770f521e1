import warnings
from typing import Any

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gomin_client.errors import SuspiciousAudioError
from gomin_client.mel.features import MelConfig, band_edges, mel_blocks, mel_filters, mel_spectrogram, refuse_excess
from tests.client.inference.pieces import pieces
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


@pytest.mark.parametrize(
    "config",
    [MelConfig(), MelConfig(44100, 2048, 512, 80), MelConfig(16000, 800, 160, 40), MelConfig(1000, 64, 16, 10)],
    ids=lambda config: f"{config.sample_rate} Hz",
)
def test_the_bands_are_librosas(config: MelConfig) -> None:
    with warnings.catch_warnings(action="ignore"):  # about bands so narrow that no bin falls into them
        filters = librosa.filters.mel(
            sr=config.sample_rate, n_fft=config.n_fft, n_mels=config.n_mels, htk=False, norm="slaney", dtype=np.float64
        )
    edges = librosa.mel_frequencies(config.n_mels + 2, fmax=config.sample_rate / 2, htk=False)

    np.testing.assert_allclose(band_edges(config), edges, rtol=1e-14)
    np.testing.assert_allclose(mel_filters(config), filters, rtol=0, atol=1e-13 * filters.max())


BLOCKS = st.lists(st.integers(1, 50), min_size=1, max_size=5)


class TestMelStream:
    @settings(max_examples=40, deadline=None)
    @given(
        st.integers(1, 9000),
        BLOCKS,
        st.sampled_from(
            [MelConfig(), MelConfig(24000, 800, 200, 20), MelConfig(8000, 64, 300, 8), MelConfig(100, 2, 1, 1)]
        ),
        st.integers(1, 3),
    )
    def test_equals_that_of_the_whole(self, samples: int, blocks: list[int], config: MelConfig, channels: int) -> None:
        wave = np.random.default_rng(samples).uniform(-1, 1, (channels, samples)).astype(np.float32)
        parts = [wave[:, begin:end] for begin, end in pieces(samples, [size * 20 for size in blocks])]

        made = np.concatenate(list(mel_blocks(parts, config)), axis=-1)

        assert made.shape == (channels, config.n_mels, config.frames(samples))
        for channel, mel in zip(wave, made, strict=True):
            np.testing.assert_allclose(mel, mel_spectrogram(channel, config), rtol=0, atol=1e-5)

    def test_nothing_is_nothing(self) -> None:
        empty: list[Any] = [np.zeros((1, 0), np.float32)]
        assert list(mel_blocks(empty, MelConfig())) == []
        with pytest.raises(ValueError, match="NaN"):
            mel_spectrogram(np.full(5, np.nan))


class TestLevel:
    @pytest.mark.parametrize("peak", [0.0, 1.0, 1.7, 8.0])
    def test_mild_overs_pass(self, peak: float) -> None:
        wave = np.array([[0, -peak, peak / 2]], np.float32)
        assert refuse_excess(wave) is wave

    @pytest.mark.parametrize(
        ("peak", "words"),
        [
            (8.1, "reaches 8.1, far beyond full scale.* 16 bits .* Divide it by 32768 .*volume=1/32768"),
            (-32768, "16 bits stored as floats"),
            (40000, "24 bits stored as floats. Divide it by 8388608 "),
            (2**31, "32 bits stored as floats. Divide it by 2147483648 "),
            (1e20, r"its scale is not known. Divide it by 1e\+20, for instance"),
        ],
    )
    def test_far_beyond_full_scale_is_refused(self, peak: float, words: str) -> None:
        with pytest.raises(SuspiciousAudioError, match=words) as raised:
            refuse_excess(np.array([[0.1, peak]], np.float32))

        assert "`force=True` skips this check" in str(raised.value)
