"""Arrays and streams of arrays that Python code passes to the library: taken from any library, checked once, here."""

from __future__ import annotations

import numbers
import os
import reprlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.contract.model import ModelContract
from gomin_client.errors import ContractError, SuspiciousMelError, UsageError
from gomin_client.mel import scales
from gomin_client.mel.features import Mel, MelBatch, Wave, refuse_excess
from gomin_client.mel.resampling import HIGHEST_RATE, LOWEST_RATE

MOST_CHANNELS = 32

Array = NDArray[np.float32]


def checked_rate(sample_rate: object) -> float:
    """The sample rate, in Hz.

    Raises:
        UsageError: it is not a number from `LOWEST_RATE` to `HIGHEST_RATE`.
    """
    if (
        isinstance(sample_rate, bool)
        or not isinstance(sample_rate, int | float | np.integer | np.floating)
        or not LOWEST_RATE <= sample_rate <= HIGHEST_RATE
    ):
        given = reprlib.repr(sample_rate)
        raise UsageError(f"sample rate {given}: expected a number of Hz, from {LOWEST_RATE} to {HIGHEST_RATE}")
    return float(sample_rate) if isinstance(sample_rate, float | np.floating) else int(sample_rate)


def checked_wave(wave: object, *, channels_last: bool = False, force: bool = False) -> Wave:
    """A waveform, or a block of one, as float32: (samples,), or (channels, samples).

    Args:
        wave: (samples,), or (channels, samples), full scale ±1.
        channels_last: it is (samples, channels) instead, as soundfile and sounddevice have it.
        force: take samples far beyond full scale.

    Raises:
        UsageError: it has another shape, no samples, values that are not finite, or more than `MOST_CHANNELS` channels.
        SuspiciousAudioError: samples far beyond full scale.
    """
    array = as_floats(wave, "waveform")
    layout = "(samples,) or " + ("(samples, channels)" if channels_last else "(channels, samples)")
    if array.ndim not in (1, 2) or array.size == 0:
        raise UsageError(f"waveform of shape {array.shape}: expected {layout}, at least one sample")
    if not np.isfinite(array).all():
        raise UsageError("waveform contains NaN or infinite samples")
    array = array.T if channels_last else array
    if array.ndim == 2 and len(array) > MOST_CHANNELS:
        other = "leave `channels_last=True` out" if channels_last else "pass `channels_last=True`"
        turned = "(channels, samples)" if channels_last else "(samples, channels)"
        raise UsageError(
            f"waveform with {len(array)} channels of {array.shape[1]} samples: expected {layout} with at most "
            f"{MOST_CHANNELS} channels; if it is {turned}, {other}"
        )
    return array if force else refuse_excess(array)


def checked_waves(waves: Iterable[Any], *, channels_last: bool = False, force: bool = False) -> Blocks:
    """A recording that arrives block by block; see `checked_wave` for its blocks, and `Blocks`."""
    check = partial(checked_wave, channels_last=channels_last, force=force)
    return Blocks(waves, 1, check, "channels", time_first=channels_last)


def checked_mel(mel: object, contract: ModelContract, model: str) -> Mel | MelBatch:
    """A mel spectrogram, or a block of one, as float32: (n_mels, frames), or (batch, n_mels, frames).

    Args:
        mel: it.
        contract: the model's.
        model: its name, for messages.

    Raises:
        UsageError: it is not an array.
        ContractError: it has another shape, or values that are not finite.
    """
    array = as_floats(mel, "mel", integers=True)
    n_mels = contract.mel.n_mels
    if array.ndim not in (2, 3) or array.shape[-2] != n_mels or 0 in array.shape:
        raise ContractError(
            f"mel has shape {array.shape}; model {model} takes ({n_mels}, frames)"
            + scales.shape_hint(array.shape, n_mels)
        )
    if not np.isfinite(array).all():
        raise ContractError("mel contains NaN or infinite values")
    return array


def refuse_suspicion(suspicion: str | None) -> None:
    """Refuse a mel with a suspicion about its values; see `scales.suspicion`.

    Raises:
        SuspiciousMelError: there is one.
    """
    if suspicion is not None:
        raise SuspiciousMelError(f"mel {suspicion}")


def as_floats(given: object, what: str, *, integers: bool = False) -> NDArray[np.float32]:
    """An array of float32.

    Args:
        given: an array of numpy, torch, JAX, TensorFlow or CuPy, of any device and floating-point type; anything else
            with `__array__`, `__dlpack__` or the buffer protocol; or nested sequences of numbers or arrays.
        what: its name, for messages.
        integers: take integers too.

    Raises:
        UsageError: it is not an array of real numbers.
    """
    try:
        array = _as_array(given)
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # other libraries raise anything for what they cannot convert
        raise UsageError(
            f"{what} is {_named(given)} that is not an array of numbers ({' '.join(str(error).split())[:200]}): "
            "pass a numpy array or a tensor; pass recordings or mels of several lengths one by one"
        ) from error
    if array.dtype.kind == "V" and array.dtype.names is None:  # bfloat16 and float8 of JAX and TensorFlow
        with suppress(TypeError, ValueError):
            array = array.astype(np.float32)
    if array.dtype.kind in ("iub" if integers else ""):
        return array.astype(np.float32)
    if array.dtype.kind in "iu":
        raise UsageError(f"{what} is of {array.dtype}: expected floats, full scale ±1; divide 16-bit samples by 32768")
    if array.dtype.kind != "f":
        raise UsageError(f"{what} is {_named(given)} of {array.dtype}: expected an array of floats")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is refused later
        return array.astype(np.float32, copy=False)


def _as_array(given: Any) -> NDArray[Any]:
    if isinstance(given, np.ma.MaskedArray) and given.mask.any():
        raise ValueError("it has masked values")
    if isinstance(given, np.ndarray):
        return np.asarray(given)
    if isinstance(given, str | bytes | os.PathLike):
        raise UsageError(
            f"{reprlib.repr(given)} is {_named(given)}: expected an array; read the file first, for instance with numpy"
        )
    if hasattr(given, "detach") and hasattr(given, "is_floating_point"):  # torch, which is not imported for it
        tensor = given.detach()
        # numpy has no bfloat16
        return np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy(force=True))
    if hasattr(given, "__cuda_array_interface__") and hasattr(given, "get"):  # CuPy
        return np.asarray(given.get())
    if isinstance(given, list | tuple) and given and not isinstance(given[0], numbers.Number | list | tuple):
        return np.stack([_as_array(item) for item in given])
    if hasattr(given, "__dlpack__") and not hasattr(given, "__array__"):
        return np.asarray(np.from_dlpack(given))
    return np.asarray(given)


def _named(given: object) -> str:
    """The type of an object, with its article."""
    name = type(given).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


class Blocks:
    """Blocks with or without a first axis of rows (channels of a recording, items of a batch), checked as they arrive.

    Iterating yields them with that axis, float32; blocks without anything new are left out. `restored` turns results
    with that axis into the form of the blocks.
    """

    def __init__(
        self, blocks: Iterable[Any], ndim: int, check: Callable[[Any], Array], rows: str, *, time_first: bool = False
    ) -> None:
        """Nothing is read yet.

        Args:
            blocks: arrays as Python code passes them.
            ndim: number of axes of a block without rows.
            check: one block → float32, rows first; it may raise.
            rows: what the rows are, for messages.
            time_first: time is the first axis of the blocks, not the last.

        Raises:
            UsageError: it is not iterable.
        """
        try:
            self._blocks = iter(blocks)
        except TypeError:
            raise UsageError(f"{_named(blocks)} is not a stream of blocks: expected an iterable of arrays") from None
        self._ndim = ndim
        self._check = check
        self._rows = rows
        self._time_first = time_first
        self._shape: tuple[int, ...] | None = None  # of the rows

    def __iter__(self) -> Iterator[Array]:
        """Read the blocks.

        Raises:
            UsageError: a block has another number of rows than the one before; and what `check` raises.
        """
        for given in self._blocks:
            if (shape := tuple(getattr(given, "shape", ()))) and shape[0 if self._time_first else -1] == 0:
                continue
            block = self._check(given)
            shape = block.shape[: block.ndim - self._ndim]
            if self._shape not in (None, shape):
                before, now = (
                    f"{rows[0]} {self._rows}" if rows else "one axis less" for rows in (self._shape or (), shape)
                )
                raise UsageError(f"a block with {now} after blocks with {before}: expected the same in each")
            self._shape = shape
            yield block if shape else block[np.newaxis]

    def restored(self, parts: Iterable[Array]) -> Generator[Array]:
        """Parts of a result, (rows, …), in the form of the blocks: time first or last, with or without rows."""
        for part in parts:
            if not self._shape:
                yield part[0]
            else:
                yield part.T if self._time_first else part
