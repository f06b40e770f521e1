"""The noise field: noise as a function of seed, draw and absolute sample index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import Array

_WORDS_PER_BLOCK = 4  # Philox4x64 makes four 64-bit words from each value of its counter


class NoiseField:
    """Standard normal noise as a function of (seed, draw, absolute sample index).

    Every window of a signal, in any batch and any order, gets the noise that the whole signal would get. One sample
    takes one 64-bit word of a counter-based generator (Philox, Salmon et al. 2011), with the seed as its key and
    (sample, draw) as its counter; pairs of words become pairs of normals by the Box-Muller transform. numpy's own
    normals take a varying number of words and cannot be indexed.
    """

    def __init__(self, seeds: Sequence[int], length: int, first_samples: Sequence[int] | None = None) -> None:
        """Noise for a batch.

        Args:
            seeds: (B,) within 0 … 2**64 - 1.
            length: N, the samples of each item.
            first_samples: (B,) absolute index of each item's first sample, within 0 … 2**62 - 1; all 0 by default.

        Raises:
            ValueError: a seed or an index is out of range.
        """
        self.seeds = [int(seed) for seed in seeds]
        self.length = length
        self.first_samples = [0] * len(self.seeds) if first_samples is None else [int(first) for first in first_samples]
        if len(self.first_samples) != len(self.seeds):
            raise ValueError(f"{len(self.seeds)} seeds, but {len(self.first_samples)} first samples")
        for seed in self.seeds:
            if not 0 <= seed < 2**64:
                raise ValueError(f"seed {seed} out of range; expected 0 … 2**64 - 1")
        for first in self.first_samples:
            if not 0 <= first < 2**62:
                raise ValueError(f"first sample {first} out of range; expected 0 … 2**62 - 1")

    def __call__(self, draw: int) -> Array:
        """Noise of one draw, (B, 1, N) float32."""
        items = [
            _normals(seed, draw, first, self.length) for seed, first in zip(self.seeds, self.first_samples, strict=True)
        ]
        return np.stack(items)[:, np.newaxis, :]


def _normals(seed: int, draw: int, first: int, length: int) -> Array:
    """Samples first … first + length - 1 of one draw, (length,) float32."""
    block, skip = divmod(first, _WORDS_PER_BLOCK)
    count = -(-(skip + length) // _WORDS_PER_BLOCK) * _WORDS_PER_BLOCK
    words = np.random.Philox(key=seed, counter=block + (draw << 64)).random_raw(count)
    uniform = (words >> np.uint64(11)) * 2.0**-53  # [0, 1)
    radius = np.sqrt(-2 * np.log1p(-uniform[0::2]))
    angle = 2 * np.pi * uniform[1::2]
    normals: Array = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=-1).astype(np.float32)
    return normals.reshape(-1)[skip : skip + length]
