"""Sample rate conversion, at soxr's HQ quality, as librosa.load does for GOMIN's own program."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from gomin_client.errors import UsageError
from gomin_client.mel.features import Wave

if TYPE_CHECKING:
    import soxr

# Sample rates, in Hz, that are converted: beyond, soxr's filters and results take all time and memory.
LOWEST_RATE, HIGHEST_RATE = 100, 100_000_000

_BLOCK = 65536  # samples converted at a time


def resample(wave: Wave, rate: float, target_rate: int) -> Wave:
    """Change the sample rate of a whole waveform.

    Args:
        wave: (samples,) or (channels, samples) at `rate` Hz.
        rate: sample rate of the input, in Hz.
        target_rate: sample rate of the result, in Hz.

    Returns:
        The same number of channels, each of ceil(samples · target_rate / rate) float32 samples.

    Raises:
        UsageError: the waveform is so loud that it overflows.
    """
    if rate == target_rate:
        return wave
    blocks = list(resample_blocks([np.atleast_2d(wave)], rate, target_rate))
    resampled = np.concatenate(blocks, axis=-1)
    return resampled if wave.ndim == 2 else resampled[0]


def resample_blocks(waves: Iterable[Wave], rate: float, target_rate: int) -> Iterator[Wave]:
    """Change the sample rate of a waveform that arrives in blocks; the result does not depend on the block sizes.

    Args:
        waves: (channels, any number of samples) each.
        rate: sample rate of the input, in Hz.
        target_rate: sample rate of the result, in Hz.

    Yields:
        (channels, samples) float32; ceil(samples · target_rate / rate) samples in total.

    Raises:
        UsageError: the waveform is so loud that it overflows.
    """
    if rate == target_rate:
        yield from waves
        return
    import soxr

    streams: list[soxr.ResampleStream] = []
    taken = made = 0
    # smaller blocks if the rate rises, so that a converted block does not exceed _BLOCK samples by much
    step = min(_BLOCK, max(1, int(_BLOCK * rate / target_rate)))
    parts = (wave[:, first : first + step] for wave in waves for first in range(0, wave.shape[-1], step))
    for wave in parts:
        if not streams:
            streams = [soxr.ResampleStream(rate, target_rate, 1, dtype="float32", quality="HQ") for _ in wave]
        taken += wave.shape[-1]
        resampled = _convert(streams, np.ascontiguousarray(wave, dtype=np.float32), last=False)
        made += resampled.shape[-1]
        if resampled.shape[-1]:
            yield resampled
    if streams:
        rest = _convert(streams, np.zeros((len(streams), 0), np.float32), last=True)
        missing = math.ceil(taken * target_rate / rate) - made
        yield np.pad(rest[:, : max(0, missing)], ((0, 0), (0, max(0, missing - rest.shape[-1]))))


def _convert(streams: list[soxr.ResampleStream], wave: Wave, last: bool) -> Wave:
    """(channels, samples) → (channels, samples that are complete)."""
    # channel by channel: soxr's memory for many channels at once is out of proportion
    parts = [stream.resample_chunk(channel, last=last) for stream, channel in zip(streams, wave, strict=True)]
    stacked: Wave = np.stack(parts).astype(np.float32, copy=False)
    if not np.isfinite(stacked).all():
        raise UsageError("waveform is too loud to be resampled: it overflows")
    return stacked
