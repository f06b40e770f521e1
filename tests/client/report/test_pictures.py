"""Pictures of mel spectrograms and of their differences."""

import io

import numpy as np
import pytest
from PIL import Image

from gomin_client.mel.features import MelConfig
from gomin_client.report import pictures
from gomin_client.report.pictures import MAX_COLUMNS, band_ticks, difference_levels, mel_levels, time_ticks


def test_a_column_for_each_frame_the_highest_band_on_top() -> None:
    mel = np.zeros((4, 3), np.float32)
    mel[0, 1], mel[3, 2] = 1.0, 0.5

    levels = mel_levels(mel, 3)

    assert levels.tolist() == [[1, 1, 128], [1, 1, 1], [1, 1, 1], [1, 255, 1]]


def test_what_is_beyond_a_shorter_recording_is_empty() -> None:
    assert mel_levels(np.ones((1, 2), np.float32), 4).tolist() == [[255, 255, 0, 0]]
    assert difference_levels(np.zeros((1, 2)), np.zeros((1, 3)), 4).tolist() == [[128, 128, 0, 0]]


def test_differences_have_a_sign_and_a_limit() -> None:
    reference = np.full((1, 5), 0.5, np.float32)
    other = reference + np.float32([-0.9, -0.1, 0, 0.1, 0.9])

    assert difference_levels(reference, other, 5).tolist() == [[1, 86, 128, 170, 255]]


def test_long_recordings_share_columns() -> None:
    frames = 2 * MAX_COLUMNS + 1
    mel = np.zeros((1, frames), np.float32)
    mel[0, 4] = 0.3

    assert mel_levels(mel, frames).shape[1] == difference_levels(mel, mel, frames).shape[1] <= MAX_COLUMNS
    assert mel_levels(mel, frames)[0, :3].tolist() == [1, round(1 + 254 * 0.1), 1]  # the mean of three frames
    assert difference_levels(0 * mel, -mel, frames)[0, :3].tolist() == [128, 1, 128]  # the largest of three
    shorter = mel_levels(mel[:, : frames // 2], frames)
    assert shorter.shape[1] == mel_levels(mel, frames).shape[1]
    assert shorter[0, -1] == 0


@pytest.mark.parametrize("colours", [pictures.MEL, pictures.DIFFERENCE])
def test_png_files(colours: str) -> None:
    image = Image.open(io.BytesIO(pictures.colour_scale(colours)))
    assert image.size == (255, 1)
    shown = np.asarray(image.convert("RGBA"))[0]
    brightness = shown[:, :3].astype(int).sum(axis=1)

    assert (shown[:, 3] == 255).all()
    if colours == pictures.MEL:
        assert (np.diff(brightness) >= -2).all()
    else:  # black in the middle, blue below, orange above
        assert brightness.argmin() in range(125, 130)
        assert shown[60, 2] > shown[60, 0]
        assert shown[190, 0] > shown[190, 2]


def test_empty_columns_are_transparent(tmp_path) -> None:
    pictures.save(tmp_path / "a.png", np.uint8([[255, 0]]), pictures.MEL)

    assert np.asarray(Image.open(tmp_path / "a.png").convert("RGBA"))[0, :, 3].tolist() == [255, 0]


def test_ticks() -> None:
    assert time_ticks(0.48) == [("0", 0), *[(f"{t:g}", pytest.approx(100 * t / 0.48)) for t in (0.1, 0.2, 0.3, 0.4)]]
    assert [label for label, _ in time_ticks(6.0)] == ["0", "1", "2", "3", "4", "5"]
    assert [label for label, _ in time_ticks(6.1)] == ["0", "2", "4", "6"]
    assert [label for label, _ in time_ticks(90.0)] == ["0", "20", "40", "60", "80"]
    labels, tops = zip(*band_ticks(MelConfig()), strict=True)
    assert labels == ("100 Hz", "500 Hz", "1 kHz", "2 kHz", "4 kHz", "8 kHz")
    assert sorted(tops, reverse=True) == list(tops)
    assert all(0 < top < 100 for top in tops)
