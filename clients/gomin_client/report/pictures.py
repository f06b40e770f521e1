"""Pictures of mel spectrograms and of their differences, as small PNG files, and the scales beside them."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gomin_client.batch.plot import frequency_ticks
from gomin_client.mel.features import RANGE_DB, Mel, MelConfig

Levels = NDArray[np.uint8]  # (bands, columns), the highest band first; 0 is nothing, 1 to 255 are the colours

MAX_COLUMNS = 1600  # of a picture; several frames share a column in longer recordings
DIFFERENCE_DB = 30.0  # differences of this size and beyond have the last colour
_MOST_TICKS = 6  # of a time axis
MEL, DIFFERENCE = "mel", "difference"
# dark where nothing differs: a picture is to have one brightness on light and on dark pages
_DIFFERENCE_COLOURS = ("#9be7ff", "#2c8fd6", "#14385e", "#0b0b12", "#5e2c10", "#dd6f24", "#ffd59a")


def mel_levels(mel: Mel, frames: int) -> Levels:
    """The picture of a mel spectrogram: means over the frames of a column.

    Args:
        mel: (n_mels, frames).
        frames: of the picture, at least those of the mel; what is beyond the mel is left empty.
    """
    return _levels(_columns(mel, frames).mean(axis=2), mel.shape[1], frames)


def difference_levels(reference: Mel, other: Mel, frames: int) -> Levels:
    """The picture of the difference: in each column the largest of its frames, above the reference or below it.

    Args:
        reference: (n_mels, frames).
        other: of another length, perhaps; what only one of them has is left empty.
        frames: see `mel_levels`.
    """
    common = min(reference.shape[1], other.shape[1])
    blocks = _columns(other[:, :common] - reference[:, :common], frames)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2, keepdims=True), axis=2)[..., 0]
    return _levels((largest * RANGE_DB / DIFFERENCE_DB + 1) / 2, common, frames)


def save(path: Path, levels: Levels, colours: str) -> None:
    """Write a PNG file.

    Args:
        path: the file.
        levels: the picture.
        colours: `MEL` or `DIFFERENCE`.

    Raises:
        OSError: it cannot be written.
    """
    path.write_bytes(_png(levels, colours))


def colour_scale(colours: str) -> bytes:
    """A PNG file of all colours of a scale, from the lowest to the highest."""
    return _png(np.arange(1, 256, dtype=np.uint8)[np.newaxis], colours)


def band_ticks(config: MelConfig) -> list[tuple[str, float]]:
    """Labels of the frequency axis, with units, and their distances from the top of a picture, in percent."""
    return [
        (f"{hertz:g} Hz" if hertz < 1000 else f"{hertz / 1000:g} kHz", 100 * (1 - (band + 0.5) / config.n_mels))
        for hertz, band in frequency_ticks(config)
    ]


def time_ticks(seconds: float) -> list[tuple[str, float]]:
    """Labels of the time axis, in seconds, and their distances from the left of a picture, in percent."""
    decade = 10.0 ** np.floor(np.log10(seconds))
    step = min(step for step in decade * np.array([0.1, 0.2, 0.5, 1, 2, 5]) if seconds / step <= _MOST_TICKS)
    return [(f"{time:g}", 100 * time / seconds) for time in np.arange(0, seconds, step).round(9)]


def _columns(mel: Mel, frames: int) -> NDArray[np.float32]:
    """(n_mels, frames) → (n_mels, columns, frames of a column); the last frame is repeated in the last column."""
    size = -(-frames // MAX_COLUMNS)
    return np.pad(mel, ((0, 0), (0, -mel.shape[1] % size)), mode="edge").reshape(len(mel), -1, size)


def _levels(values: NDArray[np.float32], present: int, frames: int) -> Levels:
    """(n_mels, columns) of 0 to 1, for `present` of the picture's frames → levels."""
    levels = (1 + np.round(np.clip(values, 0, 1) * 254)).astype(np.uint8)
    size = -(-frames // MAX_COLUMNS)
    missing = -(-frames // size) - -(-present // size)
    return np.pad(levels, ((0, 0), (0, missing)))[::-1]


def _png(levels: Levels, colours: str) -> bytes:
    from PIL import Image

    height, width = levels.shape
    image = Image.frombytes("P", (width, height), levels.tobytes())
    image.putpalette(_palette(colours))
    with io.BytesIO() as file:
        image.save(file, format="PNG", optimize=True, transparency=0)
        return file.getvalue()


@lru_cache(maxsize=2)
def _palette(colours: str) -> bytes:
    """256 colours as RGB; the first is the transparent one."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    if colours == MEL:
        scale = colormaps["magma"]
    else:
        scale = LinearSegmentedColormap.from_list("difference", _DIFFERENCE_COLOURS)
    return bytes(3) + bytes(scale(np.linspace(0, 1, 255), bytes=True)[:, :3].tobytes())
