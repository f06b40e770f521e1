"""Mels in other scales: exact conversion to GOMIN's scale, and a check for mels that are not in it.

GOMIN's value is max(0, (10·log10(P + 1e-10) + 100) / 100), where P is the power in a mel band: Slaney's filters over
|STFT|² divided by the window's energy. Values that are a function of the same P can be converted. These mels cannot:
bands that sum amplitudes instead of powers (HiFi-GAN, BigVGAN, vocos), other bands, and normalization by unknown
statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.errors import ContractError, UsageError
from gomin_client.mel.features import MelConfig, from_power

GOMIN = "gomin"

_TO_POWER: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "power": lambda values: values,
    "amplitude": np.square,
    "db": lambda values: 10 ** (values / 10),
    "ln-power": np.exp,
    "ln-amplitude": lambda values: np.exp(2 * values),
    "log10-power": lambda values: 10**values,
    "log10-amplitude": lambda values: 10 ** (2 * values),
}
CONVENTIONS = (GOMIN, *_TO_POWER)

# Full scale is about 1.1, and 32-bit integers read as floats reach 2.95. A network that predicts mels may go slightly
# below 0.
HIGHEST = 3.3
LOWEST = -0.3
LOWEST_MEAN = -0.02


@dataclass(frozen=True)
class MelReading:
    """How mel files are read.

    Attributes:
        convention: see `to_gomin`.
        stft_normalized: see `to_gomin`.
        transpose: the files contain (frames, bands).

    Raises:
        UsageError: an unknown convention, or `stft_normalized` is False with GOMIN's own.
    """

    convention: str = GOMIN
    stft_normalized: bool = True
    transpose: bool = False

    def __post_init__(self) -> None:
        check_scale(self.convention)
        if not self.stft_normalized and self.convention == GOMIN:
            raise UsageError("GOMIN's mels have a normalized STFT: name the scale of these mels with `convention=…`")


def check_scale(convention: str) -> None:
    """Refuse a name that is not in `CONVENTIONS`.

    Raises:
        UsageError: lists the known names.
    """
    if convention not in CONVENTIONS:
        raise UsageError(f"mel convention {convention!r}: expected one of {', '.join(CONVENTIONS)}")


def to_gomin(
    mel: Any, convention: str, config: MelConfig | None = None, *, stft_normalized: bool = True
) -> NDArray[np.float32]:
    """Convert a mel spectrogram with GOMIN's bands to GOMIN's scale.

    Args:
        mel: an array of any shape; of numpy, torch or another library.
        convention: scale of the values: "power" is P as above, "amplitude" √P, "db" 10·log10 P, and the other names in
            `CONVENTIONS` are logarithms. "gomin" changes nothing.
        config: settings of the mel; GOMIN's own by default.
        stft_normalized: whether the STFT was divided by the square root of the window's energy, as in GOMIN. librosa
            does not divide, and torchaudio does not by default.

    Returns:
        The same shape, float32.

    Raises:
        UsageError: an unknown convention, or not an array.
        ContractError: a power or amplitude below 0, or values too large for the convention.
    """
    from gomin_client.inference.checks import as_floats  # which imports this module

    check_scale(convention)
    values = as_floats(mel, "mel", integers=True).astype(np.float64)
    if convention == GOMIN:
        return values.astype(np.float32)
    if convention in ("power", "amplitude") and values.size and values.min() < 0:
        raise ContractError(f"the mel has values down to {values.min():.3g}; {convention} is never negative")
    with np.errstate(over="ignore"):
        power = _TO_POWER[convention](values)
    if not stft_normalized:
        power = power / window_energy(config or MelConfig())
    if not np.isfinite(power).all():
        raise ContractError(f"the mel has values up to {values.max():.4g}: too large to be {convention}")
    return from_power(power).astype(np.float32)


def window_energy(config: MelConfig) -> float:
    """Sum of the squares of a periodic Hann window."""
    return 3 * config.win_length / 8 if config.win_length > 2 else 1.0


def suspicion(mel: NDArray[np.floating[Any]], *, part: bool = False) -> str | None:
    """Check whether the values of a mel can be in GOMIN's scale.

    Args:
        mel: finite values, any shape.
        part: the mel is a part of a longer one. Its mean is not checked, because a quiet part may be below 0.

    Returns:
        A description of the values and advice; None if a recording can have such a mel.
    """
    if part and mel.max() <= HIGHEST and mel.min() >= LOWEST:
        return None
    return suspicion_of_blocks([mel])


def suspicion_of_blocks(mels: Iterable[NDArray[np.floating[Any]]]) -> str | None:
    """`suspicion` for a mel that arrives in blocks, at least one."""
    low, high, count, total, squares = np.inf, -np.inf, 0, 0.0, 0.0
    for mel in mels:
        values = mel.astype(np.float64)
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        count += values.size
        total += float(values.sum())
        squares += float(np.square(values).sum())
    mean = total / count
    deviation = float(np.sqrt(max(0.0, squares / count - mean**2)))
    if high <= HIGHEST and low >= LOWEST and mean >= LOWEST_MEAN:
        return None
    looks, remedy = _guess(low, high, mean, deviation)
    return (
        f"does not look like a GOMIN mel: values run from {low:.4g} to {high:.4g}, GOMIN's from 0 (-100 dB) to about 1 "
        f"(full scale). It looks like {looks}: {remedy}. Bands that sum amplitudes, as in HiFi-GAN and vocos, cannot "
        "be converted: make the mel from the audio with `Vocoder.analyze`. `force=True` skips this check"
    )


def shape_hint(shape: tuple[int, ...], n_mels: int) -> str:
    """A guess about a mel of the wrong shape, to be appended to the message; empty if there is no guess.

    Args:
        shape: (…, bands, frames).
        n_mels: expected number of bands.
    """
    if len(shape) >= 2 and shape[-1] == n_mels != shape[-2]:
        return "; it looks transposed: `mel.T` turns (frames, bands) into (bands, frames)"
    bands = [size for size in shape[-2:] if size in _FAMILIES]
    if bands:
        return (
            f"; {bands[0]} bands are what {_FAMILIES[bands[0]]} use: they cannot be converted to {n_mels}; make the "
            "mel from the audio with `Vocoder.analyze`"
        )
    return ""


_FAMILIES = {80: "HiFi-GAN, Tacotron 2 and similar models", 100: "vocos and BigVGAN"}


def _guess(low: float, high: float, mean: float, deviation: float) -> tuple[str, str]:
    def convert(*names: str) -> str:
        return "if so, " + " or ".join(f'`to_gomin(mel, "{name}")`' for name in names) + " converts it"

    if low >= LOWEST and high > HIGHEST:
        if high > 30 and mean > 0.2 * high:
            return "decibels above a floor", "to convert it, the level of the floor below full scale must be known"
        return "power or amplitude without a logarithm", convert("power", "amplitude")
    if abs(mean) < 0.25 * deviation:
        return "a mel normalized to a mean of 0", "undo the normalization first, with its mean and deviation"
    # logarithms are clamped, mostly at 1e-10 (power) or 1e-5 (amplitude); quiet recordings reach the clamp
    if low < -30 or high > 30:
        return "decibels", convert("db")
    if low < -12:
        return "the natural logarithm of power", convert("ln-power")
    if low < -10.05:
        return "the natural logarithm of amplitude, or of power", convert("ln-amplitude", "ln-power")
    if low < -5.05:
        return "log10 of power, or a natural logarithm", convert("log10-power", "ln-amplitude", "ln-power")
    return "log10 of amplitude, or of power, or normalized", convert("log10-amplitude", "log10-power")
