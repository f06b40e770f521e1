"""librosa's Griffin-Lim on GOMIN's mels: what anyone can have without a network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gomin_client.mel.features import FLOOR, RANGE_DB, Mel, MelConfig, Wave, mel_filters
from gomin_client.mel.scales import window_energy
from gomin_export.parity.librosa_loading import load_librosa

ITERATIONS = 32
_UPDATES = 100
_TINY = 1e-20


def mel_power(mel: Mel) -> NDArray[np.float64]:
    """The inverse of `features.from_power`, within the rounding of float32: the power in each band, never negative."""
    decibels = RANGE_DB * mel.astype(np.float64) - RANGE_DB
    power: NDArray[np.float64] = np.maximum(10 ** (decibels / 10) - FLOOR, 0)
    return power


def magnitudes(mel: Mel, config: MelConfig) -> NDArray[np.float64]:
    """The magnitudes of an STFT, without the division by the window's energy, whose power has this mel.

    By multiplicative updates, which keep powers positive and lessen the Kullback-Leibler divergence (Lee & Seung 2001),
    so that quiet bands count. The least squares of librosa.feature.inverse.mel_to_stft end at an absolute tolerance,
    which leaves quiet bands wrong by decibels.

    Args:
        mel: (n_mels, frames).
        config: its settings.

    Returns:
        (n_fft // 2 + 1, frames).
    """
    filters, power = mel_filters(config), mel_power(mel)
    sums = filters.sum(axis=0)[:, np.newaxis] + _TINY
    found = np.tile(power.mean(axis=0), (filters.shape[1], 1)) + _TINY
    for _ in range(_UPDATES):
        found *= filters.T @ (power / (filters @ found + _TINY)) / sums
    made: NDArray[np.float64] = np.sqrt(found * window_energy(config))
    return made


def griffin_lim(mel: Mel, samples: int, config: MelConfig, iterations: int = ITERATIONS, seed: int = 0) -> Wave:
    """A waveform with about this mel (Griffin & Lim 1984, with the momentum of Perraudin et al. 2013).

    Args:
        mel: (n_mels, frames).
        samples: length of the waveform.
        config: the settings of the mel.
        iterations: the number of them.
        seed: of the random phases at the beginning.

    Returns:
        (samples,) float32.
    """
    wave = load_librosa().griffinlim(
        magnitudes(mel, config),
        n_iter=iterations,
        hop_length=config.hop_length,
        win_length=config.win_length,
        n_fft=config.n_fft,
        window="hann",
        center=True,
        pad_mode="constant",
        length=samples,
        random_state=seed,
    )
    return np.asarray(wave, np.float32)
