"""Griffin-Lim on GOMIN's mels: what anyone can do without a network."""

from __future__ import annotations

import librosa
import numpy as np

from gomin_client.mel.features import FLOOR, RANGE_DB, Mel, MelConfig, Wave, hann


def magnitudes(mel: Mel, config: MelConfig) -> Wave:
    """The magnitudes whose mel spectrogram is nearest to this one, by non-negative least squares.

    Args:
        mel: (n_mels, frames) on GOMIN's scale.
        config: the settings that it was made with.

    Returns:
        (n_fft // 2 + 1, frames), of a Fourier transform whose window is not divided by its energy, as librosa's.
    """
    power = np.maximum(0, 10 ** ((mel.astype(np.float64) * RANGE_DB - RANGE_DB) / 10) - FLOOR)
    found = librosa.feature.inverse.mel_to_stft(
        power, sr=config.sample_rate, n_fft=config.n_fft, power=2.0, fmin=config.f_min, fmax=config.f_max
    )
    energy = np.sum(hann(config.win_length) ** 2)
    return np.asarray(found * np.sqrt(energy), np.float32)


def griffin_lim(mel: Mel, config: MelConfig, samples: int, iterations: int) -> Wave:
    """Audio whose mel spectrogram is close to this one, with phases by fast Griffin-Lim (Perraudin et al. 2013).

    Args:
        mel: (n_mels, frames) on GOMIN's scale.
        config: the settings that it was made with.
        samples: the length of the recording.
        iterations: of the algorithm; random phases with a fixed seed are the start.

    Returns:
        (samples,) float32.
    """
    wave: Wave = librosa.griffinlim(
        magnitudes(mel, config),
        n_iter=iterations,
        hop_length=config.hop_length,
        win_length=config.win_length,
        n_fft=config.n_fft,
        window="hann",
        pad_mode="constant",
        length=samples,
        random_state=0,
    )
    return wave
