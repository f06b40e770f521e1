"""Sample rate conversion."""

import librosa
import numpy as np
import pytest

from gomin_client.errors import UsageError
from gomin_client.files import audio
from gomin_client.mel.resampling import resample, resample_blocks
from tests.support import EXAMPLES


def test_resamples_as_gomin_does() -> None:
    for path in EXAMPLES:
        recording = audio.read(path)
        expected, _ = librosa.load(path, sr=24000, mono=True)
        resampled = resample(recording.mono(), recording.rate, 24000)
        np.testing.assert_allclose(resampled, expected[np.newaxis], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "rate", "length"), [(1, 8000, 3), (2, 96000, 1), (44100, 44100, 24000), (7, 24000, 7)]
)
def test_the_length_is_rounded_up(samples: int, rate: int, length: int) -> None:
    assert resample(np.zeros(samples, np.float32), rate, 24000).shape == (length,)
    assert resample(np.zeros((2, samples), np.float32), rate, 24000).shape == (2, length)


@pytest.mark.parametrize("size", [1, 100, 7000])
def test_blocks_do_not_change_the_result(size: int) -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, (2, 10000)).astype(np.float32)
    blocks = [wave[:, first : first + size] for first in range(0, wave.shape[1], size)]
    resampled = np.concatenate(list(resample_blocks(blocks, 44100, 24000)), axis=1)
    np.testing.assert_allclose(resampled, resample(wave, 44100, 24000), rtol=0, atol=1e-6)


def test_an_overflow_is_refused() -> None:
    wave = np.tile(np.float32([3.4e38, -3.4e38]), 5000)
    with pytest.raises(UsageError, match="too loud"):
        resample(wave, 44100, 24000)
