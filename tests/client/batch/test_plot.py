"""The plot of reconstructions."""

from pathlib import Path

import numpy as np
import pytest

from gomin_client.batch.plot import PlotColumn, save
from gomin_client.errors import FileError
from gomin_client.mel.features import MelConfig, mel_spectrogram

CONFIG = MelConfig()


def column(name: str, samples: int = 6000) -> PlotColumn:
    original = np.random.default_rng(0).uniform(-0.3, 0.3, samples).astype(np.float32)
    return PlotColumn.of(name, original, original[: samples - 100] / 2, CONFIG)


def test_a_column_has_the_mels_of_both() -> None:
    made = column("a")

    assert [len(wave) for wave in made.waves] == [6000, 5900]
    for wave, mel in zip(made.waves, made.mels, strict=True):
        np.testing.assert_array_equal(mel, mel_spectrogram(wave, CONFIG))


def test_names_that_are_formulas_or_not_text(tmp_path: Path) -> None:
    path = tmp_path / "new" / "plot.png"

    save(path, [column("$x_{1$"), column("a\udcffb"), column("silence")], CONFIG)

    assert path.read_bytes().startswith(b"\x89PNG")


def test_silence_and_a_short_recording(tmp_path: Path) -> None:
    silence = np.zeros(300, np.float32)

    save(tmp_path / "plot.png", [PlotColumn.of("silence", silence, silence, CONFIG)], CONFIG)

    assert (tmp_path / "plot.png").is_file()


def test_a_plot_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(FileError, match=r"plot\.png: cannot be written"):
        save(tmp_path / "file" / "plot.png", [column("a")], CONFIG)
