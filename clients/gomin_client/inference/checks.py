"""What people hand over from Python, checked before it is worked on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gomin_client.errors import UsageError
from gomin_client.mel.features import Wave

Block = TypeVar("Block", bound=Wave)
_MOST_CHANNELS = 128


def checked_wave(wave: NDArray[np.floating[Any]], sample_rate: float) -> Wave:
    """The waveform as float32, of the same shape.

    Raises:
        UsageError: no floats, another shape than (samples,) or (channels, samples), not finite; or no sample rate.
    """
    given = np.asarray(wave)
    if given.dtype.kind != "f":
        raise UsageError(f"waveform of {given.dtype}: expected floats, full scale ±1; divide 16-bit samples by 32768")
    wave = given.astype(np.float32, copy=False)
    if wave.ndim not in (1, 2) or wave.size == 0 or not np.isfinite(wave).all():
        raise UsageError(
            f"waveform of shape {wave.shape}: expected (samples,) or (channels, samples), at least one, all finite"
        )
    if wave.ndim == 2 and len(wave) > _MOST_CHANNELS:
        raise UsageError(
            f"waveform of shape {wave.shape}: that is {len(wave)} channels; if it is (samples, channels), as soundfile "
            "reads it, give its .T"
        )
    if not isinstance(sample_rate, (int, float, np.integer, np.floating)) or not 0 < sample_rate < np.inf:
        raise UsageError(f"sample rate {sample_rate!r}: expected a positive number of Hz")
    return wave


def alike(blocks: Iterable[Block], what: str) -> Iterator[Block]:
    """The same blocks, all with as many rows as the first.

    Raises:
        UsageError: one has others; `what` they are, for the message.
    """
    rows: int | None = None
    for block in blocks:
        if rows is not None and len(block) != rows:
            raise UsageError(f"a block of {len(block)} {what} after blocks of {rows}: expected as many in each")
        rows = len(block)
        yield block
