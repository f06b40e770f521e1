"""The table of formats: everything derived from it, and a custom format."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from gomin_client.errors import UsageError
from gomin_client.files import audio, formats
from gomin_client.files.formats import AUDIO, MEL, Format


class ToyDecoder:
    """Rate and number of channels in the first line, float32 samples after it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.rate, self.channels = map(int, self._file.readline().split())

    def read(self, size: int) -> NDArray[np.float32]:
        return np.frombuffer(self._file.read(4 * size * self.channels), "<f4").reshape(-1, self.channels)

    def defect(self) -> str:
        return ""

    def close(self) -> None:
        self._file.close()


def write_toy(path: Path, waves: Iterable[NDArray[np.float32]], rate: int, encoding: str, comment: str) -> int:
    samples = 0
    with path.open("wb") as file:
        for wave in waves:
            if samples == 0:
                file.write(f"{rate} {len(wave)}\n".encode())
            file.write(wave.T.astype("<f4").tobytes())
            samples += wave.shape[1]
    return samples


TOY = Format("toy", AUDIO, (".toy",), reader=ToyDecoder, writer=write_toy)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Format:
    monkeypatch.setattr(formats, "FORMATS", list(formats.FORMATS))
    formats.register(TOY)
    return TOY


def test_a_format_of_ones_own_is_read_and_written(toy: Format, tmp_path: Path, repository: Path) -> None:
    from gomin_client.cli.main import app

    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 5000)).astype(np.float32)
    audio.write(tmp_path / "a.toy", wave, 24000)
    np.testing.assert_array_equal(audio.read(tmp_path / "a.toy").samples, wave)

    arguments = ["reconstruct", str(tmp_path / "a.toy"), "-o", str(tmp_path / "b.toy"), "--url", f"local:{repository}"]
    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 0, result.output
    written = audio.read(tmp_path / "b.toy")
    assert (written.samples.shape, written.rate) == ((1, 5000), 24000)


def test_a_format_of_ones_own_is_found_in_folders_and_named_by_options(
    toy: Format, tmp_path: Path, repository: Path
) -> None:
    from gomin_client.cli.main import app

    audio.write(tmp_path / "in" / "a.toy", np.zeros((1, 600), np.float32), 24000)

    arguments = ["reconstruct", str(tmp_path / "in"), "-f", "toy", "-m", "gan", "--url", f"local:{repository}"]
    assert CliRunner().invoke(app, arguments).exit_code == 0

    assert (tmp_path / "in" / "a_gan.toy").exists()


@pytest.mark.parametrize(
    ("added", "message"),
    [
        (Format("toy", AUDIO, (".wav",)), r"\.wav' is taken"),
        (Format("wav", AUDIO, (".toy",)), "'wav' is taken"),
        (Format("toy", AUDIO, ("toy",)), "begins with a dot"),
        (Format("toy", AUDIO, (".TOY",)), "lower case"),
    ],
)
def test_a_format_that_cannot_be_added(added: Format, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        formats.register(added)


def test_extensions_in_either_case() -> None:
    assert formats.to_read(Path("a.WAV")) is formats.of(Path("a.wav"))
    assert formats.to_read(Path("a.xyz")) is formats.to_read(Path("a")) is None


def test_only_the_first_extension_of_a_format_is_written() -> None:
    assert formats.to_read(Path("a.opus")) is not None
    assert formats.to_write(Path("a.opus")) is None
    assert set(formats.writable()) < set(formats.readable())
    assert formats.writable(MEL) == formats.readable(MEL) == (".npz", ".npy", ".pt")


@pytest.mark.parametrize("name", ["FLAC", ".flac", "flac"])
def test_names_of_formats(name: str) -> None:
    assert formats.named(name, AUDIO).extension == ".flac"


@pytest.mark.parametrize(
    ("name", "stream", "message"),
    [
        ("npz", False, "--format npz: expected wav, flac, ogg, mp3"),
        ("aiff", False, "--format aiff: expected wav, flac, ogg, mp3"),
        ("raw", False, "--format raw: expected wav, flac, ogg, mp3"),
        ("flac", True, r"--stream: \.flac needs to be complete; expected --format wav or raw"),
        ("xyz", True, "--format xyz: expected wav, raw"),
    ],
)
def test_a_name_that_is_not_that_of_a_format(name: str, stream: bool, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        formats.named(name, AUDIO, stream=stream)


def test_the_table_loads_no_heavy_package() -> None:
    program = "import sys, gomin_client.files.formats; print({'numpy', 'soundfile', 'torch'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "set()"


def test_every_function_that_the_table_names_exists() -> None:
    for known in formats.FORMATS:
        assert known.reader is None or callable(formats.loaded(known.reader))
        assert known.writer is None or callable(formats.loaded(known.writer))
