"""Audio is read to its end despite a wrong header, and the content decides the format, not the name."""

from __future__ import annotations

import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gomin_client.errors import FileError, UsageError
from gomin_client.files import audio, ffmpeg
from gomin_client.files.opening import identify
from tests.client.files import recordings
from tests.client.files.recordings import RATE, encoded, sweep

SOUND = sweep()
FRAME = 1152  # samples of an MPEG frame


def read(path: Path, content: bytes) -> audio.Recording:
    path.write_bytes(content)
    return audio.read(path)


def read_pipe(content: bytes) -> tuple[NDArray[np.float32], str]:
    """The samples and the warning, through a pipe."""
    out, into = os.pipe()

    def feed() -> None:
        with open(into, "wb") as file:
            file.write(content)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        with audio.AudioReader(out) as reader:
            samples = np.concatenate(list(reader.blocks(1000)), axis=1)
            return samples, reader.warning
    finally:
        while os.read(out, 1 << 16):
            pass
        thread.join()
        os.close(out)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html></html>", bytes(range(256)) * 200])
def test_the_name_is_no_reason_to_guess_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes
) -> None:
    with pytest.raises(FileError, match="its content is"):
        read(tmp_path / "a.mp3", content)

    assert capfd.readouterr().err == ""


def test_a_sample_rate_that_cannot_be_converted(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"a\.wav: has a sample rate of 1 Hz; expected at least 100"):
        read(tmp_path / "a.wav", encoded(SOUND, "WAV", rate=1))


def test_files_that_follow_in_a_pipe_are_reported() -> None:
    samples, warning = read_pipe(encoded(SOUND, "WAV") * 2)

    assert samples.shape == (1, RATE)
    assert warning == "standard input: is several files in one; the first was read, 1.00 s"


class TestMpeg:
    def test_without_a_header_the_rest_is_not_lost(self, tmp_path: Path) -> None:
        whole = read(tmp_path / "a.mp3", encoded(SOUND, "MP3"))
        recording = read(tmp_path / "b.mp3", recordings.mp3_from_a_pipe(SOUND))

        assert whole.samples.shape == (1, RATE)
        assert RATE <= recording.samples.shape[1] <= RATE + 2 * FRAME  # the padding cannot be told from sound
        assert recording.warning == ""

    def test_joined_files(self, tmp_path: Path) -> None:
        one = encoded(SOUND, "MP3")
        recording = read(tmp_path / "a.mp3", one + encoded(SOUND[:12000], "MP3"))

        assert abs(recording.samples.shape[1] - 36000) <= 2 * FRAME + 600
        assert recording.warning == ""

    @pytest.mark.parametrize("name", ["a.mp3", "a"])
    def test_a_part_of_a_broadcast(self, tmp_path: Path, name: str) -> None:
        """It begins within a frame, and ends within one."""
        stream = recordings.mp3_from_a_pipe(sweep(4))
        whole = read(tmp_path / "b.mp3", stream)

        recording = read(tmp_path / name, stream[1500:-100])

        # quiet frames are small, and the first seconds are quiet
        assert whole.samples.shape[1] // 2 < recording.samples.shape[1] < whole.samples.shape[1]
        assert recording.warning == ""

    def test_tags_before_and_after(self, tmp_path: Path) -> None:
        one = encoded(SOUND, "MP3")
        tag = b"ID3\x04\x00\x00\x00\x00\x01\x48" + b"TIT2" + bytes(196)

        recording = read(tmp_path / "a.mp3", tag + one + b"TAG" + bytes(125))

        np.testing.assert_array_equal(recording.samples, read(tmp_path / "b.mp3", one).samples)
        assert recording.warning == ""


class TestFlac:
    @pytest.mark.parametrize("declared", [1000, 12000])
    def test_a_length_that_is_too_small(self, tmp_path: Path, declared: int) -> None:
        content = bytearray(encoded(SOUND, "FLAC"))
        content[22:26] = declared.to_bytes(4, "big")

        recording = read(tmp_path / "a.flac", bytes(content))

        assert recording.samples.shape == (1, 24000)
        assert recording.warning == ""

    def test_a_length_of_zero(self, tmp_path: Path) -> None:
        whole = read(tmp_path / "a.flac", encoded(SOUND, "FLAC"))
        recording = read(tmp_path / "b.flac", recordings.flac_from_a_pipe(SOUND))

        np.testing.assert_array_equal(recording.samples, whole.samples)
        assert recording.warning == ""

    @pytest.mark.parametrize("make", [lambda samples: encoded(samples, "FLAC"), recordings.flac_from_a_pipe])
    def test_joined_files(self, tmp_path: Path, make: Callable[[NDArray[np.float32]], bytes]) -> None:
        recording = read(tmp_path / "a.flac", make(SOUND) + make(SOUND[:12000]))

        assert recording.samples.shape == (1, 36000)
        assert recording.warning == ""

    def test_truncated(self, tmp_path: Path) -> None:
        content = encoded(sweep(4), "FLAC")
        recording = read(tmp_path / "a.flac", content[: len(content) * 2 // 3])

        assert 2 * RATE < recording.samples.shape[1] < 3 * RATE
        assert "is truncated; read as far as it goes, 2." in recording.warning


class TestOgg:
    @pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
    def test_chained_streams(self, tmp_path: Path, subtype: str) -> None:
        recording = read(tmp_path / "a.ogg", encoded(SOUND, "OGG", subtype) + encoded(SOUND[:12000], "OGG", subtype))

        assert recording.samples.shape == (1, 36000)
        assert recording.warning == ""

    @pytest.mark.parametrize(("channels", "rate"), [(2, RATE), (1, 16000)])
    def test_streams_that_differ_are_refused(self, tmp_path: Path, channels: int, rate: int) -> None:
        other = encoded(sweep(channels=channels), "OGG", rate=rate)

        with pytest.raises(FileError, match=r"its format changes from 1 channels at 24000 Hz to .*; split it there"):
            read(tmp_path / "a.ogg", encoded(SOUND, "OGG") + other)

    def test_truncated(self, tmp_path: Path) -> None:
        content = encoded(sweep(4), "OGG")

        assert "is truncated" in read(tmp_path / "a.ogg", content[: len(content) // 2]).warning


class TestMpeg4:
    def test_alac_is_exact(self, tmp_path: Path) -> None:
        for name in ("a.m4a", "b.mp4", "c"):
            recordings.mp4(tmp_path / name, SOUND)
            recording = audio.read(tmp_path / name)
            assert (recording.rate, recording.warning) == (RATE, "")
            np.testing.assert_allclose(recording.samples.T, SOUND, rtol=0, atol=1e-4)

    def test_with_another_extension_the_error_says_what_it_is(self, tmp_path: Path) -> None:
        recordings.mp4(tmp_path / "a.mp3", SOUND)

        with pytest.raises(
            FileError, match=r"a\.mp3: cannot be read as audio: it is an MPEG-4 .*; rename it to a\.m4a"
        ):
            audio.read(tmp_path / "a.mp3")

    def test_truncated(self, tmp_path: Path) -> None:
        recordings.mp4(tmp_path / "a.m4a", SOUND)
        content = (tmp_path / "a.m4a").read_bytes()

        with pytest.raises(FileError, match="it is truncated; what is missing is needed"):
            read(tmp_path / "b.m4a", content[: len(content) // 2])


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a"])
def test_content_that_libsndfile_reads_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    np.testing.assert_allclose(read(tmp_path / name, encoded(SOUND, "AIFF")).samples.T, SOUND, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"hello, this is text\n", "text"),
        (bytes(5000), "nothing but zero bytes"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive"),
        (b"\x93NUMPY\x01\x00", "a numpy array"),
        (bytes(range(256)) * 8, "not in a known format"),
        (b"RIFF\x10\0\0\0WAVE", "damaged, or of a kind that is not supported"),
        (b"fLaC" + bytes(100), "FLAC whose header does not|damaged"),
    ],
)
def test_what_is_not_audio_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(FileError, match=words) as raised:
        read(tmp_path / "a.mp3", content)

    assert "\n" not in str(raised.value)
    for libsndfile in ("psf_", "does not exist", "Format not recognised", "unspecified", "[Errno"):
        assert libsndfile.lower() not in str(raised.value).lower()


def test_a_length_is_not_needed_to_identify_a_file() -> None:
    assert identify(b"") is None
    assert identify(b"\xff") is None
    assert identify(b"OggS") is not None


class TestWithoutPyAV:
    @pytest.fixture(autouse=True)
    def no_pyav(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ffmpeg, "is_installed", lambda: False)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.mp3", recordings.mp3_from_a_pipe(SOUND)),
            ("a.flac", recordings.flac_from_a_pipe(SOUND)),
            ("a.webm", b"\x1a\x45\xdf\xa3" + bytes(100)),
        ],
    )
    def test_the_message_names_the_extra(self, tmp_path: Path, name: str, content: bytes) -> None:
        with pytest.raises((FileError, UsageError), match=r"needs? PyAV: pip install 'gomin-triton\[formats\]'"):
            read(tmp_path / name, content)

    @pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64", "RF64"])
    def test_whole_files_do_not_need_it(self, tmp_path: Path, kind: str) -> None:
        assert read(tmp_path / "a", encoded(SOUND, kind)).samples.shape == (1, RATE)


class TestPipes:
    @pytest.mark.parametrize("kind", ["WAV", "AU", "AIFF", "FLAC", "OGG"])
    def test_as_from_a_file(self, tmp_path: Path, kind: str) -> None:
        content = encoded(sweep(channels=2), kind)

        samples, warning = read_pipe(content)

        # FFmpeg and libvorbis round differently
        np.testing.assert_allclose(samples, read(tmp_path / "a", content).samples, rtol=0, atol=1e-6)
        assert warning == ""

    def test_mpeg_without_a_header(self) -> None:
        samples, warning = read_pipe(recordings.mp3_from_a_pipe(SOUND))

        assert RATE <= samples.shape[1] <= RATE + 2 * FRAME
        assert warning == ""

    def test_what_cannot_be_read_while_it_arrives(self, tmp_path: Path) -> None:
        recordings.mp4(tmp_path / "a.m4a", SOUND)
        for content, words in (
            ((tmp_path / "a.m4a").read_bytes(), "an MPEG-4 .*: leave --stream out"),
            (encoded(SOUND, "WAV", "IMA_ADPCM"), "compressed samples: leave --stream out"),
            (b"hello", "its content is text"),
            (b"", "it is empty"),
        ):
            with pytest.raises(FileError, match=f"standard input: cannot be read as audio: .*{words}"):
                read_pipe(content)

    def test_a_header_says_where_samples_end(self) -> None:
        samples, warning = read_pipe(encoded(SOUND, "WAV") + b"LIST\x04\0\0\0INFO")

        assert (samples.shape, warning) == ((1, RATE), "")

    def test_truncated(self) -> None:
        samples, warning = read_pipe(encoded(SOUND, "WAV")[:24044])

        assert samples.shape == (1, 12000)
        assert "is truncated; read as far as it goes, 0.50 s" in warning


@pytest.mark.slow
@pytest.mark.parametrize("make", [recordings.flac_from_a_pipe, recordings.mp3_from_a_pipe])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, make: Callable[[NDArray[np.float32]], bytes]) -> None:
    (tmp_path / "a").write_bytes(make(sweep(300)))
    tracemalloc.start()
    with audio.AudioReader(tmp_path / "a") as reader:
        count = sum(block.shape[1] for block in reader.blocks())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert count >= 300 * RATE
    assert peak < 8 << 20  # the samples have 27 MiB
