"""Audio files: reading, mixing down, writing."""

import os
import resource
import threading
import time
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from gomin_client.errors import FileError, UsageError
from gomin_client.files import audio
from tests.support import EXAMPLES


def test_reads_and_mixes_down_as_gomin_does() -> None:
    for path in EXAMPLES:
        recording = audio.read(path)
        expected, _ = librosa.load(path, sr=None, mono=True)
        np.testing.assert_allclose(recording.mono(), expected[np.newaxis], rtol=0, atol=1e-7)
        assert recording.rate == soundfile.info(path).samplerate
        assert recording.warning == ""


@pytest.mark.parametrize(
    ("name", "tolerance"), [("a.wav", 1e-4), ("a.flac", 1e-4), ("a.ogg", 0.2), ("a.mp3", 0.2), ("A.WAV", 1e-4)]
)
def test_writes_what_it_can_read(tmp_path: Path, name: str, tolerance: float) -> None:
    wave = (np.sin(np.arange(12000) / 20) * 0.5).astype(np.float32)

    audio.write(tmp_path / name, wave, 24000)

    written = audio.read(tmp_path / name)
    assert written.rate == 24000
    np.testing.assert_allclose(written.samples[0, 1000:11000], wave[1000:11000], rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "subtype", "expected"),
    [
        ("a.wav", None, "PCM_16"),
        ("a.wav", "24", "PCM_24"),
        ("a.wav", "float", "FLOAT"),
        ("a.flac", None, "PCM_16"),
        ("a.flac", "24", "PCM_24"),
        ("a.ogg", None, "VORBIS"),
        ("a.ogg", "opus", "OPUS"),
        ("a.mp3", None, "MPEG_LAYER_III"),
    ],
)
def test_subtypes_and_channels(tmp_path: Path, name: str, subtype: str | None, expected: str) -> None:
    wave = (np.sin(np.arange(12000) / 20) * np.array([[0.5], [0.1]])).astype(np.float32)

    audio.write(tmp_path / name, wave, 24000, subtype)

    assert soundfile.info(tmp_path / name).subtype == expected
    samples = audio.read(tmp_path / name).samples[:, 1000:11000]
    assert np.abs(samples).max(axis=1) == pytest.approx([0.5, 0.1], abs=0.06)


def test_a_long_ogg_file(tmp_path: Path) -> None:
    """libsndfile's Vorbis encoder overflows the stack if it is given minutes at once."""
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, 240 * 24000).astype(np.float32)

    audio.write(tmp_path / "a.ogg", wave, 24000)

    assert soundfile.info(tmp_path / "a.ogg").frames == len(wave)


def test_a_subtype_that_a_format_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--subtype float: \.flac files have 16, 24"):
        audio.write(tmp_path / "a.flac", np.zeros(5, np.float32), 24000, "float")


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.mp3"])
def test_a_truncated_file_is_read_as_far_as_it_goes(tmp_path: Path, name: str) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 24000).astype(np.float32)
    path = tmp_path / name
    soundfile.write(path, wave, 24000)
    whole = audio.read(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    half = audio.read(path)

    assert whole.warning == ""
    assert "a." in half.warning
    assert "is truncated; read as far as it goes, 0." in half.warning
    assert 5000 < half.samples.shape[1] < 13000


def test_a_length_that_a_pipe_did_not_know_is_no_truncation(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(2400), 24000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(content)

    recording = audio.read(tmp_path / "a.wav")

    assert (recording.samples.shape, recording.warning) == ((1, 2400), "")


def test_what_exceeds_full_scale_is_clipped_not_wrapped(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.wav", np.array([1.5, -1.5, 0.0], np.float32), 24000)

    np.testing.assert_allclose(audio.read(tmp_path / "a.wav").samples, [[1, -1, 0]], rtol=0, atol=1e-4)


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"a\.wav: cannot be written"):
        audio.write(tmp_path / "file" / "a.wav", np.zeros(5, np.float32), 24000)
    with pytest.raises(FileError, match=r"cannot write \.xyz"):
        audio.write(tmp_path / "a.xyz", np.zeros(5, np.float32), 24000)


@pytest.mark.parametrize(
    ("name", "subtype", "channels"),
    [("a.mp3", None, 3), ("a.flac", None, 9), ("a.ogg", "vorbis", 256), ("a.ogg", "opus", 256)],
)
def test_audio_that_a_format_does_not_have_is_an_error(
    tmp_path: Path, name: str, subtype: str | None, channels: int
) -> None:
    with pytest.raises(FileError, match=rf"{name}: cannot be written as \w+ with {channels} channels.*; \.wav has no"):
        audio.write(tmp_path / name, np.zeros((channels, 5), np.float32), 24000, subtype)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.ogg", "x.mp3"])
@pytest.mark.parametrize("end", [0, -1])
def test_a_file_without_room_for_its_end_is_an_error(tmp_path: Path, name: str, end: int) -> None:
    """As on a full disk. libsndfile ignores such errors, above all those of the last bytes, at the end of a file."""
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 7200)).astype(np.float32)
    audio.write(tmp_path / name, wave, 24000)
    size = (tmp_path / name).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, ((size + end) % size, before[1]))
        with pytest.raises(FileError, match=f"made.*{name}: cannot be written: File too large"):
            audio.write(tmp_path / "made" / name, wave, 24000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "made").iterdir()) == []


def test_an_interrupt_while_libsndfile_writes_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    writes = iter([memoryview, memoryview])

    def interrupted(data: bytes) -> memoryview:
        try:
            return next(writes)(data)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(audio, "memoryview", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        audio.write(tmp_path / "x.flac", np.zeros((1, 72000), np.float32), 24000)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")

    with pytest.raises(FileError, match=r"a\.wav: is not a file; pass a pipe as standard input, -"):
        audio.read(tmp_path / "a.wav")


def test_a_reader_is_not_closed_while_it_is_read(tmp_path: Path) -> None:
    """A model that fails while the next block is being read: libsndfile would read freed memory."""
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).uniform(-1, 1, 24000 * 60), 24000)
    for _ in range(20):
        with audio.AudioReader(tmp_path / "a.flac") as reader:
            blocks = reader.blocks(200_000)
            thread = threading.Thread(target=lambda blocks=blocks: list(blocks))
            thread.start()
            next_block_is_being_read = 0.01
            time.sleep(next_block_is_being_read)
        thread.join()
