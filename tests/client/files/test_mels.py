"""Mel files: written files are read back; anything else is an error."""

import io
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gomin_client.errors import FileError, GominError, UsageError
from gomin_client.files import mels as mel_files
from gomin_client.mel.features import MelConfig

CONFIG = MelConfig(22050, 800, 200, 80)
MEL = np.random.default_rng(0).uniform(0, 1.2, (2, 80, 7)).astype(np.float32)


@pytest.mark.parametrize("extension", [".npz", ".pt", ".npy", ".NPZ"])
@pytest.mark.parametrize("channels", [1, 2])
def test_there_and_back(tmp_path: Path, extension: str, channels: int) -> None:
    path = tmp_path / f"new/a{extension}"

    mel_files.write(path, MEL[:channels], CONFIG)

    back = mel_files.read(path)
    np.testing.assert_array_equal(back.mel, MEL[:channels])
    assert back.config == (None if extension == ".npy" else CONFIG)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_pt_files_are_gomins(tmp_path: Path) -> None:
    mel_files.write(tmp_path / "a.pt", MEL[:1], CONFIG)

    content = torch.load(tmp_path / "a.pt", weights_only=True)

    assert content["melspec"].shape == (1, 80, 7)
    assert {name: content[name] for name in content if name != "melspec"} == {
        "n_mels": 80,
        "sample_rate": 22050,
        "win_length": 800,
        "hop_length": 200,
    }


def test_a_bare_array_is_bands_by_frames(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", MEL[0].astype(np.float64))
    np.testing.assert_array_equal(mel_files.read(tmp_path / "a.npy").mel, MEL[:1])
    mel_files.write(tmp_path / "b.npy", MEL[:1], CONFIG)
    assert np.load(tmp_path / "b.npy").shape == (80, 7)
    torch.save(torch.from_numpy(MEL[0]), tmp_path / "c.pt")
    np.testing.assert_array_equal(mel_files.read(tmp_path / "c.pt").mel, MEL[:1])


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code was run')",))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.npz", b"", "is empty"),
        ("a.npy", b"hello", "is text; expected a numpy file"),
        ("a.npz", b"PK\x03\x04 damaged", "is truncated or damaged"),
        ("a.pt", b"hello", "cannot be loaded safely|can be loaded safely"),
        ("a.pt", b"", "is empty"),
        ("a.pt", pickle.dumps(Malicious()), "can be loaded safely"),
    ],
)
def test_damaged_and_hostile_files(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(FileError, match=words):
        mel_files.read(tmp_path / name)


def test_torch_files_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"melspec": Malicious()}, tmp_path / "a.pt")
    with pytest.raises(FileError, match="can be loaded safely"):
        mel_files.read(tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", np.array([Malicious()], dtype=object), allow_pickle=True)
    with pytest.raises(FileError, match="is not a numpy file of numbers"):
        mel_files.read(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(5), "has shape"),
        (np.zeros((1, 1, 1, 1)), "has shape"),
        (np.zeros((80, 0)), "is empty"),
        (np.full((80, 2), np.nan), "NaN or infinite"),
        (np.full((80, 2), 1e300), "NaN or infinite"),
        (np.zeros((80, 2), complex), "expected real numbers"),
        (np.array([["a"]]), "expected real numbers"),
        (np.zeros((80, 2), bool), "expected real numbers"),
    ],
)
def test_what_is_no_mel(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "a.npy", array)

    with pytest.raises(FileError, match=words):
        list(mel_files.read(tmp_path / "a.npy").blocks())


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.longdouble, np.int8, np.int64, np.uint64, ">f4"])
def test_real_numbers_of_every_type_are_read(tmp_path: Path, dtype: str) -> None:
    mel = np.arange(12).reshape(4, 3).astype(dtype)
    np.savez(tmp_path / "a.npz", melspec=mel)
    np.save(tmp_path / "a.npy", mel)

    for name in ("a.npz", "a.npy"):
        (block,) = mel_files.read(tmp_path / name).blocks()
        assert block.dtype == np.float32
        np.testing.assert_array_equal(block, [np.arange(12).reshape(4, 3)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hop_length": None}, "but not hop_length"),
        ({"hop_length": "x"}, "hop_length is .*'x'.*; expected a whole number"),
        ({"hop_length": 2.5}, "hop_length is .*2.5"),
        ({"hop_length": -1}, "its hop_length is -1"),
        ({"n_mels": 128}, "says n_mels 128, but its mel has 80 bands"),
        ({"melspec": None}, "has no array melspec|has no entry melspec"),
    ],
)
@pytest.mark.parametrize("extension", [".npz", ".pt"])
def test_settings_that_make_no_sense(tmp_path: Path, extension: str, change: dict[str, object], words: str) -> None:
    settings = {"melspec": MEL, "n_mels": 80, "sample_rate": 22050, "win_length": 800, "hop_length": 200, **change}
    settings = {name: value for name, value in settings.items() if value is not None}
    path = tmp_path / f"a{extension}"
    if extension == ".npz":
        np.savez(path, **settings)  # type: ignore[arg-type]
    else:
        torch.save({**settings, **({"melspec": torch.from_numpy(MEL)} if "melspec" in settings else {})}, path)

    with pytest.raises(FileError, match=words):
        mel_files.read(path)


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        mel_files.read(tmp_path / "a.npz")
    with pytest.raises(UsageError, match=r"not a mel file; known are \.npz, \.npy, \.pt"):
        mel_files.read(tmp_path / "a.wav")
    (tmp_path / "b.npz").mkdir()
    with pytest.raises(FileError, match="is a directory"):
        mel_files.read(tmp_path / "b.npz")
    np.save(tmp_path / "c.npy", MEL)
    (tmp_path / "c.npy").rename(tmp_path / "c.npz")
    with pytest.raises(FileError, match=r"call it \.npy"):
        mel_files.read(tmp_path / "c.npz")


def _intact(extension: str) -> bytes:
    buffer = io.BytesIO()
    if extension == ".pt":
        torch.save({"melspec": torch.from_numpy(MEL), "n_mels": 80}, buffer)
    elif extension == ".npz":
        np.savez(buffer, melspec=MEL)
    else:
        np.save(buffer, MEL)
    return buffer.getvalue()


INTACT = {extension: _intact(extension) for extension in (".npz", ".npy", ".pt")}


@given(
    extension=st.sampled_from(sorted(INTACT)),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    cut=st.floats(0, 1),
)
def test_damage_of_any_kind_is_a_mel_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, extension: str, edits: list[tuple[float, int]], cut: float
) -> None:
    content = bytearray(INTACT[extension])
    for place, value in edits:
        content[int(place * (len(content) - 1))] = value
    path = tmp_path_factory.mktemp("damaged") / f"a{extension}"
    path.write_bytes(content[: max(1, int(cut * len(content)))])

    with suppress(GominError):
        for block in mel_files.read(path).blocks():
            assert np.isfinite(block).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html>", "is an HTML page"),
    ],
)
@pytest.mark.parametrize("extension", [".npy", ".npz"])
def test_a_download_that_is_something_else_is_called_that(
    tmp_path: Path, content: bytes, words: str, extension: str
) -> None:
    path = tmp_path / f"mel{extension}"
    path.write_bytes(content)

    with pytest.raises(FileError, match=words):
        mel_files.read(path)
