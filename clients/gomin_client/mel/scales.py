"""Mel conventions other than GOMIN's: what can be converted exactly, and what other mels look like.

GOMIN's value is max(0, (10·log10(P + 1e-10) + 100) / 100), where P is the power in a mel band: Slaney's filters over
|STFT|² divided by the window's energy. Values that are a function of the same P can be converted. Mels whose bands sum
amplitudes, not powers (HiFi-GAN, BigVGAN, vocos), whose bands lie elsewhere, or that were normalised by statistics that
did not come with them, cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.errors import ContractError, UsageError
from gomin_client.mel.features import Mel, MelConfig, from_power

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

# Full scale is about 1.1, and 32-bit integers taken for floats would come to 2.95; a network that predicts mels may
# fall short of 0 a little.
HIGHEST = 3.3
LOWEST = -0.3
LOWEST_MEAN = -0.02


@dataclass(frozen=True)
class MelReading:
    """How to take the mels of files.

    Attributes:
        convention: see `to_gomin`.
        stft_normalized: see `to_gomin`.
        transpose: they are (frames, bands).
        force: take values that do not look like GOMIN's.

    Raises:
        UsageError: an unknown convention, or an STFT without its window's energy under GOMIN's own.
    """

    convention: str = GOMIN
    stft_normalized: bool = True
    transpose: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        check_scale(self.convention)
        if not self.stft_normalized and self.convention == GOMIN:
            raise UsageError("GOMIN's mels have a normalized STFT: say with --mel-convention what these are")


def check_scale(convention: str) -> None:
    """Refuse a name that is not in `CONVENTIONS`.

    Raises:
        UsageError: lists those there are.
    """
    if convention not in CONVENTIONS:
        raise UsageError(f"mel convention {convention!r}: expected one of {', '.join(CONVENTIONS)}")


def to_gomin(
    mel: NDArray[np.floating[Any]], convention: str, config: MelConfig | None = None, *, stft_normalized: bool = True
) -> Mel:
    """Convert a mel spectrogram of GOMIN's bands to GOMIN's values.

    Args:
        mel: of any shape.
        convention: what its values are: "power" P as above, "amplitude" √P, "db" 10·log10 P, or the logarithms that the
            others of `CONVENTIONS` name. "gomin" leaves it as it is.
        config: its settings; GOMIN's own by default.
        stft_normalized: whether the STFT was divided by the root of the window's energy, as GOMIN's is; librosa's is
            not, nor torchaudio's unless asked to.

    Returns:
        The same shape, float32.

    Raises:
        UsageError: an unknown convention.
        ContractError: a power or amplitude below 0, or values too large for the convention.
    """
    check_scale(convention)
    values = np.asarray(mel, dtype=np.float64)
    if convention == GOMIN:
        return values.astype(np.float32)
    if convention in ("power", "amplitude") and values.size and values.min() < 0:
        raise ContractError(f"the mel has values down to {values.min():.3g}: that is no {convention}, which is above 0")
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
    """What is suspicious about the values of a mel that claims to be GOMIN's.

    Args:
        mel: finite values, of any shape.
        part: it is a part of something longer, whose mean tells nothing: a quiet moment may lie below 0.

    Returns:
        What they look like and what to do; None for anything that a recording may turn into.
    """
    if part and mel.max() <= HIGHEST and mel.min() >= LOWEST:
        return None
    return suspicion_of_blocks([mel])


def suspicion_of_blocks(mels: Iterable[NDArray[np.floating[Any]]]) -> str | None:
    """`suspicion` about a mel that comes block by block, at least one."""
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
        f"(full scale). It looks like {looks}: {remedy}. Bands that sum amplitudes, as HiFi-GAN's and vocos', cannot "
        "be converted: make the mel from the audio with `gomin-client analyze`. --force goes on as it is"
    )


def shape_hint(shape: tuple[int, ...], n_mels: int) -> str:
    """What a mel of the wrong shape may be, in words to be put behind the message; empty if there is nothing to say.

    Args:
        shape: (…, bands, frames).
        n_mels: bands that were expected.
    """
    if len(shape) >= 2 and shape[-1] == n_mels != shape[-2]:
        return "; it looks transposed: --transpose turns (frames, bands) into (bands, frames)"
    bands = [size for size in shape[-2:] if size in _FAMILIES]
    if bands:
        return (
            f"; {bands[0]} bands are what {_FAMILIES[bands[0]]} use: they cannot be made into {n_mels}, make the mel "
            "from the audio with `gomin-client analyze`"
        )
    return ""


_FAMILIES = {80: "HiFi-GAN, Tacotron 2 and their kin", 100: "vocos and BigVGAN"}


def _guess(low: float, high: float, mean: float, deviation: float) -> tuple[str, str]:
    def convert(*names: str) -> str:
        return "if so, " + " or ".join(f"--mel-convention {name}" for name in names) + " converts it"

    if low >= LOWEST and high > HIGHEST:
        if high > 30 and mean > 0.2 * high:
            return "decibels above a floor", "how far the floor lies below full scale must be known to convert it"
        return "power or amplitude without a logarithm", convert("power", "amplitude")
    if abs(mean) < 0.25 * deviation:
        return "a mel normalised to a mean of 0", "undo that first, with the mean and deviation that it was made with"
    # logarithms are clamped, mostly at 1e-10 (power) or 1e-5 (amplitude); quiet recordings come down to that
    if low < -30 or high > 30:
        return "decibels", convert("db")
    if low < -12:
        return "the natural logarithm of power", convert("ln-power")
    if low < -10.05:
        return "the natural logarithm of amplitude, or of power", convert("ln-amplitude", "ln-power")
    if low < -5.05:
        return "log10 of power, or a natural logarithm", convert("log10-power", "ln-amplitude", "ln-power")
    return "log10 of amplitude, or of power, or normalised", convert("log10-amplitude", "log10-power")
