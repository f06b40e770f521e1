"""GOMIN's mel front end, in numpy.

STFT with zero padding at both ends, power over the window's energy, Slaney mel bands, decibels mapped so that -100 dB
is 0 and 0 dB is 1. There is no upper clamp: loud input exceeds 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.errors import SuspiciousAudioError

Mel = NDArray[np.float32]  # (n_mels, frames)
MelBatch = NDArray[np.float32]  # (batch, n_mels, frames); the channels of a recording are a batch too
Wave = NDArray[np.float32]  # (samples,) or (channels, samples), full scale ±1

# Recordings at full scale exceed 1 by a little, in float files, and so do models; integers that are stored as floats
# exceed it by far.
LOUDEST = 8.0
FLOOR = 1e-10  # power at -100 dB
RANGE_DB = 100.0
# samples and frames processed at once; limits the memory for a long recording
_BLOCK = 1 << 18
_BLOCK_FRAMES = 1024

# Slaney's mel scale: a mel is 200/3 Hz below 1 kHz, and 27 mels above it are a factor of 6.4
_LINEAR_HZ = 200 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ
_LOG_STEP = float(np.log(6.4)) / 27


@dataclass(frozen=True)
class MelConfig:
    """Settings of a mel spectrogram; the defaults are GOMIN's released settings.

    Attributes:
        sample_rate: samples per second.
        win_length: length of the Hann window, in samples.
        hop_length: samples between frames.
        n_mels: mel bands, from 0 Hz to half the sample rate.

    Raises:
        ValueError: a value is not a whole number of at least 1.
    """

    sample_rate: int = 24000
    win_length: int = 1024
    hop_length: int = 256
    n_mels: int = 128

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")
        if self.win_length < 2:
            raise ValueError("win_length is 1; expected at least 2: a Hann window of one sample is zero")

    @property
    def n_fft(self) -> int:
        """Transform length: the smallest power of two that is not less than win_length."""
        return 1 << (self.win_length - 1).bit_length()

    @property
    def f_min(self) -> float:
        """Lower edge of the first band, in Hz."""
        return 0.0

    @property
    def f_max(self) -> float:
        """Upper edge of the last band, in Hz."""
        return self.sample_rate / 2

    def frames(self, samples: int) -> int:
        """Number of frames of a recording with this number of samples."""
        return 1 + samples // self.hop_length


def refuse_excess(wave: Wave) -> Wave:
    """Refuse samples far beyond full scale.

    Args:
        wave: finite samples, any shape.

    Returns:
        The same.

    Raises:
        SuspiciousAudioError: samples beyond ±`LOUDEST`; the message says what they look like and how to convert them.
    """
    peak = float(np.abs(wave).max(initial=0))
    if peak <= LOUDEST:
        return wave
    bits = next((bits for bits in (16, 24, 32) if peak <= 1.01 * 2 ** (bits - 1)), None)
    if bits is None:
        looks, remedy = "its scale is not known", f"Divide it by {peak:.4g}, for instance"
    else:
        scale = 2 ** (bits - 1)
        looks = f"it looks like integers of {bits} bits stored as floats"
        remedy = f"Divide it by {scale} (ffmpeg -i in.wav -af volume=1/{scale} out.wav)"
    raise SuspiciousAudioError(
        f"audio reaches {peak:.6g}, far beyond full scale, which is 1: {looks}. {remedy}. `force=True` skips this check"
    )


def mel_spectrogram(wave: NDArray[np.floating[Any]], config: MelConfig | None = None) -> Mel:
    """The mel spectrogram that GOMIN's networks invert.

    Computed in float64, so that values near the floor are not affected by rounding in the transform.

    Args:
        wave: (samples,) waveform at config.sample_rate, full scale ±1.
        config: GOMIN's own settings by default.

    Returns:
        (n_mels, frames) float32 with frames = 1 + samples // hop_length; silence is 0, full scale about 1.

    Raises:
        ValueError: the waveform is empty, not one-dimensional, or contains NaN or infinite samples.
    """
    if wave.ndim != 1 or wave.size == 0:
        raise ValueError(f"waveform has shape {wave.shape}; expected (samples,) with at least one sample")
    if not np.isfinite(wave).all():
        raise ValueError("waveform contains NaN or infinite samples")
    blocks = [wave[np.newaxis, first : first + _BLOCK] for first in range(0, len(wave), _BLOCK)]
    return np.concatenate([mel[0] for mel in mel_blocks(blocks, config or MelConfig())], axis=-1)


def mel_blocks(waves: Iterable[NDArray[np.floating[Any]]], config: MelConfig) -> Iterator[MelBatch]:
    """The mel spectrogram of a waveform that arrives in blocks; the result does not depend on the block sizes.

    Args:
        waves: (channels, any number of finite samples) each, at config.sample_rate.
        config: settings.

    Yields:
        (channels, n_mels, frames) float32, at least one frame each; in total 1 + samples // hop_length frames, or none
        for a waveform without samples.
    """
    half = config.n_fft // 2
    samples = frames = 0
    beyond = 0  # samples to skip before the next frame, if a hop is longer than the transform
    held: NDArray[np.floating[Any]] | None = None  # from the first sample of the next frame on
    for wave in waves:
        if wave.shape[-1] == 0:
            continue
        samples += wave.shape[-1]
        before = np.zeros((len(wave), half), wave.dtype) if held is None else held
        held = np.concatenate((before, wave[:, beyond:]), axis=-1)
        beyond = max(0, beyond - wave.shape[-1])
        if held.shape[-1] >= config.n_fft:
            mel = _mel(held, config)
            frames += mel.shape[-1]
            yield mel
            used = mel.shape[-1] * config.hop_length
            beyond = max(0, used - held.shape[-1])
            held = held[:, used:]
    if held is not None and frames < config.frames(samples):
        # half a transform of silence: the remaining frames reach this far beyond the end
        rest = (config.frames(samples) - frames - 1) * config.hop_length + config.n_fft
        yield _mel(np.pad(held, ((0, 0), (0, rest - held.shape[-1]))), config)


def _mel(padded: NDArray[np.floating[Any]], config: MelConfig) -> MelBatch:
    """(channels, samples), at least n_fft → (channels, n_mels, frames): all frames that fit, the first at sample 0."""
    window, filters = hann_window(config), mel_filters(config)
    frames = 1 + (padded.shape[-1] - config.n_fft) // config.hop_length
    mel = np.empty((len(padded), config.n_mels, frames), dtype=np.float32)
    for channel, wave in enumerate(padded):
        for part, spectrum in stft_blocks(wave, window, config.hop_length):
            power = spectrum.real**2 + spectrum.imag**2
            mel[channel, :, part] = from_power(filters @ power.T)
    return mel


def stft_blocks(
    wave: NDArray[np.floating[Any]], window: NDArray[np.float64], hop_length: int
) -> Iterator[tuple[slice, NDArray[np.complex128]]]:
    """The short-time Fourier transform of a waveform, in blocks of frames, which limit the memory.

    Args:
        wave: (samples,), at least as many as the window has.
        window: (n_fft,).
        hop_length: samples between frames.

    Yields:
        Which frames, counted from 0, and their spectra: (frames, n_fft // 2 + 1). Frame 0 begins with sample 0, and
        the last one ends with the last sample or less than a hop before it.
    """
    starts = np.lib.stride_tricks.sliding_window_view(wave, len(window))[::hop_length]
    for first in range(0, len(starts), _BLOCK_FRAMES):
        part = slice(first, min(first + _BLOCK_FRAMES, len(starts)))
        yield part, np.fft.rfft(starts[part].astype(np.float64) * window)


def from_power(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mel band power → GOMIN's scale: decibels, mapped so that -100 dB is 0 and 0 dB is 1."""
    decibels = 10 * np.log10(power + FLOOR)
    values: NDArray[np.float64] = np.maximum(0, (decibels + RANGE_DB) / RANGE_DB)
    return values


def hann(length: int) -> NDArray[np.float64]:
    """(length,) periodic Hann window."""
    window: NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    return window


def centred(window: NDArray[np.float64], n_fft: int) -> NDArray[np.float64]:
    """(n_fft,): the window in the middle of the frame and zeros around it, as in torch.stft."""
    left = (n_fft - len(window)) // 2
    return np.pad(window, (left, n_fft - len(window) - left))


@lru_cache(maxsize=8)
def hann_window(config: MelConfig) -> NDArray[np.float64]:
    """(n_fft,) periodic Hann window of unit energy, centred in the frame."""
    window = hann(config.win_length)
    return centred(window / np.sqrt(np.sum(window**2)), config.n_fft)


@lru_cache(maxsize=8)
def mel_filters(config: MelConfig) -> NDArray[np.float64]:
    """(n_mels, n_fft // 2 + 1) triangular filters, equidistant on Slaney's mel scale, each of unit area over Hz."""
    edges = band_edges(config)[:, np.newaxis]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bins = np.fft.rfftfreq(config.n_fft, 1 / config.sample_rate)  # in Hz
    triangles = np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    filters: NDArray[np.float64] = triangles * (2 / (high - low))
    return filters


def band_edges(config: MelConfig) -> NDArray[np.float64]:
    """(n_mels + 2,) frequencies in Hz: band i begins at edge i, has its centre at edge i + 1 and ends at edge i + 2."""
    mels = np.linspace(_slaney_mel(config.f_min), _slaney_mel(config.f_max), config.n_mels + 2)
    linear = mels * _LINEAR_HZ
    return np.where(mels < _BREAK_MEL, linear, _BREAK_HZ * np.exp((mels - _BREAK_MEL) * _LOG_STEP))


def _slaney_mel(hertz: float) -> float:
    """A frequency on Slaney's mel scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above."""
    if hertz < _BREAK_HZ:
        return hertz / _LINEAR_HZ
    return _BREAK_MEL + float(np.log(hertz / _BREAK_HZ)) / _LOG_STEP
