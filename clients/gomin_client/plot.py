"""A picture of reconstructions: mel spectrograms, the original above what the vocoder made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gomin_client.audio import Wave
from gomin_client.errors import UsageError
from gomin_client.files import appearing
from gomin_client.mel import RANGE_DB, Mel, MelConfig, mel_spectrogram

MAX_COLUMNS = 8
_TICKS_HZ = (100, 500, 1000, 2000, 4000, 8000)


@dataclass(frozen=True)
class Comparison:
    """One column of the picture.

    Attributes:
        name: its title.
        original: (n_mels, frames) mel of the recording.
        reconstruction: (n_mels, frames) mel of the vocoder's audio.
    """

    name: str
    original: Mel
    reconstruction: Mel


def compare(name: str, original: Wave, reconstruction: Wave, config: MelConfig) -> Comparison:
    """Analyze both recordings, at the model's sample rate, for a picture."""
    return Comparison(name, mel_spectrogram(original, config), mel_spectrogram(reconstruction, config))


def require_matplotlib() -> None:
    """Fail before any work is done, not after.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("plots need matplotlib: pip install 'gomin-triton[plot]'") from None


def save(path: Path, comparisons: Sequence[Comparison], config: MelConfig) -> None:
    """Draw the comparisons side by side, original above reconstruction, into a PNG.

    Raises:
        FileError: the file cannot be written.
    """
    import librosa
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = len(comparisons)
    figure = Figure(figsize=(1.5 + 3.4 * columns, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, columns, squeeze=False, sharey=True)
    bands = librosa.mel_frequencies(config.n_mels + 2, fmin=config.f_min, fmax=config.f_max, htk=False)[1:-1]
    ticks = [hertz for hertz in _TICKS_HZ if hertz < config.f_max]
    for column, comparison in enumerate(comparisons):
        for row, mel in enumerate((comparison.original, comparison.reconstruction)):
            ax = axes[row, column]
            seconds = mel.shape[1] * config.hop_length / config.sample_rate
            image = ax.imshow(
                mel * RANGE_DB - RANGE_DB,
                origin="lower",
                aspect="auto",
                extent=(0, seconds, -0.5, config.n_mels - 0.5),
                vmin=-RANGE_DB,
                vmax=0,
                cmap="magma",
                interpolation="nearest",
            )
            ax.set_yticks(np.interp(ticks, bands, np.arange(config.n_mels)), [f"{t / 1000:g}" for t in ticks])
        axes[0, column].set_title(comparison.name)
        axes[0, column].tick_params(labelbottom=False)
        axes[1, column].set_xlabel("time (s)")
    axes[0, 0].set_ylabel("original\nfrequency (kHz, mel scale)")
    axes[1, 0].set_ylabel("reconstruction\nfrequency (kHz, mel scale)")
    figure.colorbar(image, ax=axes, label="level in mel band (dB)")
    with appearing(path) as part:
        figure.savefig(part, format="png", dpi=110)
