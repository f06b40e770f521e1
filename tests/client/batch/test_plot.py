"""The plot of reconstructions."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gomin_client.batch.inputs import STREAM
from gomin_client.batch.plot import MAX_COLUMNS, PlotColumn, picture_paths, save
from gomin_client.errors import FileError, UsageError
from gomin_client.mel.features import MelConfig, mel_spectrogram

CONFIG = MelConfig()


def column(name: str, samples: int = 6000) -> PlotColumn:
    original = np.random.default_rng(0).uniform(-0.3, 0.3, samples).astype(np.float32)
    return PlotColumn.of(name, (original, original[: samples - 100] / 2), CONFIG)


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

    save(tmp_path / "plot.png", [PlotColumn.of("silence", (silence, silence), CONFIG)], CONFIG)

    assert (tmp_path / "plot.png").is_file()


def test_each_row_has_the_same_height(tmp_path: Path) -> None:
    heights = []
    for rows in (("original", "one"), ("original", "one", "two", "three")):
        waves = [np.zeros(300, np.float32)] * len(rows)
        save(tmp_path / "plot.png", [PlotColumn.of("silence", waves, CONFIG)], CONFIG, rows)
        with Image.open(tmp_path / "plot.png") as picture:
            heights.append(picture.height)

    assert heights[1] == 2 * heights[0]


def test_a_plot_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(FileError, match=r"plot\.png: cannot be written"):
        save(tmp_path / "file" / "plot.png", [column("a")], CONFIG)


class TestPicturePaths:
    def test_up_to_eight_files_share_a_picture(self) -> None:
        assert picture_paths(Path("p.png"), [Path(f"{i}.wav") for i in range(MAX_COLUMNS)]) == {}

    @pytest.mark.parametrize("name", ["p.png", "p"])
    def test_more_have_one_each_in_the_subfolders_of_the_outputs(self, name: str) -> None:
        targets = [Path("out", "sub" if i % 2 else "", f"{i}.wav") for i in range(MAX_COLUMNS + 1)]

        pictures = picture_paths(Path(name), targets)

        assert list(pictures) == targets
        assert pictures[targets[0]] == Path("p/0.png")
        assert pictures[targets[1]] == Path("p/sub/1.png")

    def test_a_folder_has_pictures_of_any_number_of_files(self, tmp_path: Path) -> None:
        (tmp_path / "v1.png").mkdir()

        assert picture_paths(Path("p"), [Path("out/a.wav")]) == {Path("out/a.wav"): Path("p/a.png")}
        assert picture_paths(Path("p"), [STREAM]) == {STREAM: Path("p/stdout.png")}
        assert picture_paths(tmp_path / "v1.png", [Path("a.wav")]) == {Path("a.wav"): tmp_path / "v1.png/a.png"}

    def test_outputs_of_one_name_keep_their_extensions(self) -> None:
        targets = [Path("a.wav"), Path("a.flac"), Path("b.wav")]

        assert [path.name for path in picture_paths(Path("p"), targets).values()] == [
            "a.wav.png",
            "a.flac.png",
            "b.png",
        ]

    def test_names_that_are_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "p").touch()

        with pytest.raises(UsageError, match=r"p\.jpg: expected a file name that ends with \.png, or a folder"):
            picture_paths(Path("p.jpg"), [Path("a.wav")])
        for name in ("p", "p.png"):
            with pytest.raises(UsageError, match="p: is a file; the pictures of 9 files need a folder"):
                picture_paths(tmp_path / name, [Path(f"{i}.wav") for i in range(9)])
