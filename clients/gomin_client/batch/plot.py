"""A plot of reconstructions: waveform and mel spectrogram of the original, above those of its reconstructions."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gomin_client.batch.inputs import STREAM
from gomin_client.errors import UsageError
from gomin_client.files.atomic import atomic_write
from gomin_client.mel.features import RANGE_DB, Mel, MelConfig, Wave, band_edges, mel_spectrogram

MAX_COLUMNS = 8
_TICKS_HZ = (100, 500, 1000, 2000, 4000, 8000)
_POINTS = 1200  # points of a drawn waveform: a minimum and a maximum each


@dataclass(frozen=True)
class PlotColumn:
    """One column of the plot.

    Attributes:
        name: its title.
        waves: (samples,) of the recording and of the vocoder's audio, from top to bottom.
        mels: (n_mels, frames) of each.
    """

    name: str
    waves: tuple[Wave, ...]
    mels: tuple[Mel, ...]

    @classmethod
    def of(cls, name: str, waves: Sequence[Wave], config: MelConfig) -> PlotColumn:
        """Analyze recordings, (samples,) each at the sample rate of `config`."""
        return cls(name, tuple(waves), tuple(mel_spectrogram(wave, config) for wave in waves))


def require_matplotlib() -> None:
    """Fail before any work is done, not after.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("plots need matplotlib: pip install 'gomin-triton[plot]'") from None


def picture_paths(plot: Path, targets: Sequence[Path]) -> dict[Path, Path]:
    """The pictures of a batch that does not fit into one: output file → picture, in the outputs' subfolders.

    Args:
        plot: a folder; or a .png file, that becomes one if there are more than `MAX_COLUMNS` outputs.
        targets: the outputs, all different.

    Returns:
        Nothing if there is one picture of all outputs.

    Raises:
        UsageError: the name of another kind of file.
    """
    if plot.suffix.lower() == ".png" and not plot.is_dir():
        if len(targets) <= MAX_COLUMNS:
            return {}
        plot = plot.with_suffix("")
    elif plot.suffix and not plot.is_dir():
        raise UsageError(f"{plot}: expected a file name that ends with .png, or a folder")
    if plot.exists() and not plot.is_dir():
        raise UsageError(f"{plot}: is a file; the pictures of {len(targets)} files need a folder")
    whole = [Path(os.path.abspath(target)) for target in targets]
    common = os.path.commonpath([target.parent for target in whole])
    stems = Counter(target.with_suffix("") for target in whole)
    pictures = {}
    for target, path in zip(targets, whole, strict=True):
        name = path.stem if stems[path.with_suffix("")] == 1 else path.name  # a.wav and a.flac: keep the extensions
        name = "stdout" if target == STREAM else name
        pictures[target] = plot / path.parent.relative_to(common) / f"{name}.png"
    return pictures


def save(
    path: Path, columns: Sequence[PlotColumn], config: MelConfig, rows: Sequence[str] = ("original", "reconstruction")
) -> None:
    """Draw the columns side by side, original above reconstruction, into a PNG file.

    Args:
        path: the file.
        columns: one for each recording.
        config: the settings of the mels.
        rows: the name of each waveform of a column, from top to bottom.

    Raises:
        FileError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.8 + 3.4 * len(columns), 3.8 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    ratios = (1, 2.2) * len(rows)
    axes = figure.subplots(len(ratios), len(columns), squeeze=False, sharey="row", sharex="col", height_ratios=ratios)
    ticks_hz, bands = zip(*frequency_ticks(config), strict=True)
    labels = [f"{hertz / 1000:g}" for hertz in ticks_hz]
    largest = max(float(np.abs(wave).max()) for column in columns for wave in column.waves)
    for index, column in enumerate(columns):
        for row, (wave, mel) in enumerate(zip(column.waves, column.mels, strict=True)):
            above, below = axes[2 * row, index], axes[2 * row + 1, index]
            seconds = len(wave) / config.sample_rate
            time, low, high = _envelope(wave, config.sample_rate)
            above.fill_between(time, low, high, color="tab:blue", linewidth=0.4)
            above.set_ylim(-1.05 * max(largest, 1e-3), 1.05 * max(largest, 1e-3))
            image = below.imshow(
                mel * RANGE_DB - RANGE_DB,
                origin="lower",
                aspect="auto",
                extent=(0, mel.shape[1] * config.hop_length / config.sample_rate, -0.5, config.n_mels - 0.5),
                vmin=-RANGE_DB,
                vmax=0,
                cmap="magma",
                interpolation="nearest",
            )
            below.set_yticks(bands, labels)
            below.set_xlim(0, seconds)
        # file names are not formulas, and need not be text
        axes[0, index].set_title(column.name.encode(errors="replace").decode(), parse_math=False)
        axes[-1, index].set_xlabel("time (s)")
    for row, name in enumerate(rows):
        axes[2 * row, 0].set_ylabel(f"{name}\namplitude")
        axes[2 * row + 1, 0].set_ylabel("frequency\n(kHz, mel scale)")
    figure.colorbar(image, ax=axes[1::2, :], label="level in mel band (dB)")
    with atomic_write(path) as part:
        figure.savefig(part, format="png", dpi=110)


def frequency_ticks(config: MelConfig) -> list[tuple[int, float]]:
    """Frequencies of an axis, in Hz, and the bands that they belong to, counted from 0 and between two bands."""
    centres = band_edges(config)[1:-1]
    ticks = [hertz for hertz in _TICKS_HZ if hertz < config.f_max]
    positions = np.interp(ticks, centres, np.arange(config.n_mels))
    return list(zip(ticks, positions.tolist(), strict=True))


def _envelope(wave: Wave, sample_rate: int) -> tuple[Wave, Wave, Wave]:
    """Time in seconds, and the smallest and the largest sample around it."""
    step = max(1, len(wave) // _POINTS)
    count = len(wave) // step
    blocks = wave[: count * step].reshape(count, step)
    return (np.arange(count) + 0.5) * step / sample_rate, blocks.min(axis=1), blocks.max(axis=1)
