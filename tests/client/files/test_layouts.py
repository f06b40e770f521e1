"""Headers of uncompressed audio: missing lengths, wrong lengths and streams."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest

from gomin_client.errors import FileError
from gomin_client.files import audio
from gomin_client.files.layouts import Layout, LayoutError, read_layout
from tests.client.files.recordings import RATE, encoded, sweep, wav
from tests.client.files.test_opening import read, read_pipe

SOUND = sweep(channels=2)
SIZE = 4 * RATE  # bytes of the samples, at 16 bits
UNKNOWN = [0, 0x7FFFFFFF, 0x7FFFFFFF - 36, 0x7FFFF000, 0x80000000, 0x80000024, 0xFFFFFFFF, 0xFFFFFFFF - 36, 0xFFFFFFFE]


@pytest.mark.parametrize("data", UNKNOWN)
@pytest.mark.parametrize("riff", [0, 0xFFFFFFFF, 36 + SIZE])
def test_wav_of_unknown_length(tmp_path: Path, riff: int, data: int) -> None:
    whole = audio_of(tmp_path, encoded(SOUND, "WAV"))
    content = wav(SOUND, riff, data)

    recording = read(tmp_path / "a.wav", content)
    samples, warning = read_pipe(content)

    np.testing.assert_array_equal(recording.samples, whole)
    np.testing.assert_array_equal(samples, whole)
    assert recording.warning == warning == ""


def audio_of(home: Path, content: bytes) -> np.ndarray:
    return read(home / "whole", content).samples


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
def test_every_encoding_is_decoded_as_libsndfile_does(tmp_path: Path, kind: str, subtype: str) -> None:
    content = encoded(SOUND, kind, subtype)
    start = content.index(b"data") + 8
    stream = content[: start - 4] + b"\xff\xff\xff\xff" + content[start:]

    recording = read(tmp_path / "a.wav", stream)

    np.testing.assert_array_equal(recording.samples, audio_of(tmp_path, content))
    assert recording.warning == ""


def test_compressed_wav_of_unknown_length(tmp_path: Path) -> None:
    recording = read(tmp_path / "a.wav", wav(SOUND[:, :1], 0, 0, "IMA_ADPCM"))

    assert abs(recording.samples.shape[1] - RATE) <= 1024
    assert recording.warning == ""


@pytest.mark.parametrize("more", [44, 36])
def test_a_length_that_counts_the_header(tmp_path: Path, more: int) -> None:
    recording = read(tmp_path / "a.wav", wav(SOUND, 36 + SIZE, SIZE + more))

    assert (recording.samples.shape, recording.warning) == ((2, RATE), "")


def test_truncated_wav(tmp_path: Path) -> None:
    recording = read(tmp_path / "a.wav", encoded(SOUND, "WAV")[: 44 + SIZE // 2])

    assert recording.samples.shape == (2, RATE // 2)
    assert recording.warning.endswith("a.wav: is truncated; read as far as it goes, 0.50 s")


def test_no_samples_before_other_chunks(tmp_path: Path) -> None:
    header = wav(SOUND[:0], 48, 0)

    with pytest.raises(FileError, match=r"a\.wav: contains no samples"):
        read(tmp_path / "a.wav", header + b"LIST\x04\0\0\0INFO")
    with pytest.raises(FileError, match=r"a\.wav: contains no samples"):
        read(tmp_path / "a.wav", header)


def test_chunks_after_the_samples_are_no_sound(tmp_path: Path) -> None:
    recording = read(tmp_path / "a.wav", encoded(SOUND, "WAV") + b"LIST\x04\0\0\0INFO")

    assert (recording.samples.shape, recording.warning) == ((2, RATE), "")


def test_a_length_that_is_too_short_is_reported(tmp_path: Path) -> None:
    """A recorder that corrects its header from time to time, and was killed."""
    recording = read(tmp_path / "a.wav", wav(SOUND, 36 + SIZE // 2, SIZE // 2))

    assert recording.samples.shape == (2, RATE // 2)
    assert "a.wav: has more than its header says, which was not read, 0.50 s" in recording.warning


def test_padding_after_the_samples_is_not_reported(tmp_path: Path) -> None:
    assert read(tmp_path / "a.wav", encoded(SOUND, "WAV") + bytes(5000)).warning == ""


def test_truncated_au(tmp_path: Path) -> None:
    recording = read(tmp_path / "a.au", encoded(SOUND, "AU")[: -SIZE // 2])

    assert recording.samples.shape == (2, RATE // 2)
    assert "is truncated" in recording.warning


def test_au_is_samples_to_its_end(tmp_path: Path) -> None:
    recording = read(tmp_path / "a.au", encoded(SOUND, "AU") * 2)

    assert (recording.samples.shape, recording.warning) == ((2, 2 * RATE), "")


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "CAF", "W64", "RF64"])
def test_a_second_file_is_reported(tmp_path: Path, kind: str) -> None:
    recording = read(tmp_path / "a", encoded(SOUND, kind) * 2)

    np.testing.assert_array_equal(recording.samples, audio_of(tmp_path, encoded(SOUND, kind)))
    assert "is several files in one; the first was read, 1.00 s" in recording.warning


def test_streams_that_were_joined_are_read_without_their_headers(tmp_path: Path) -> None:
    whole = audio_of(tmp_path, encoded(SOUND, "WAV", "FLOAT"))
    stream = wav(SOUND, 0xFFFFFFFF, 0xFFFFFFFF, "FLOAT")

    recording = read(tmp_path / "a.wav", stream * 2)
    np.testing.assert_array_equal(recording.samples, np.concatenate([whole, whole], axis=1))
    assert recording.warning == ""

    with pytest.raises(FileError, match="several files in one, which differ in rate, channels or encoding; split it"):
        read(tmp_path / "b.wav", stream + wav(SOUND[:, :1], 0, 0xFFFFFFFF, "FLOAT"))


def rf64() -> bytes:
    content = encoded(SOUND, "RF64")
    assert content[12:16] == b"ds64"
    return content[:20] + bytes(24) + content[44:]


def aiff() -> bytes:
    content = encoded(SOUND, "AIFF")
    frames, size = content.index(b"COMM") + 10, content.index(b"SSND") + 4
    content = content[:frames] + bytes(4) + content[frames + 4 :]
    return content[:4] + bytes(4) + content[8:size] + bytes(4) + content[size + 4 :]


def au() -> bytes:
    content = encoded(SOUND, "AU")
    assert content[:4] == b".snd"
    return content[:8] + b"\xff\xff\xff\xff" + content[12:]


def caf() -> bytes:
    content = encoded(SOUND, "CAF")
    size = content.index(b"data") + 4
    return content[:size] + b"\xff" * 8 + content[size + 8 :]


def w64() -> bytes:
    content = encoded(SOUND, "W64")
    size = content.index(b"data\xf3\xac\xd3\x11") + 16
    return content[:16] + bytes(8) + content[24:size] + struct.pack("<Q", 24) + content[size + 8 :]


@pytest.mark.parametrize("make", [rf64, aiff, au, caf, w64])
def test_other_streams(tmp_path: Path, make: object) -> None:
    assert callable(make)
    content = make()
    whole = audio_of(tmp_path, encoded(SOUND, make.__name__.upper()))

    recording = read(tmp_path / "a", content)
    samples, warning = read_pipe(content)

    # libsndfile may pad its own files
    np.testing.assert_array_equal(recording.samples[:, :RATE], whole)
    np.testing.assert_array_equal(samples[:, :RATE], whole)
    assert recording.samples.shape[1] - RATE in range(4)
    assert recording.warning == warning == ""


@pytest.mark.parametrize(
    ("codec", "encoding", "is_big_endian"),
    [(b"sowt", "PCM_16", False), (b"twos", "PCM_16", True), (b"fl32", "FLOAT", True), (b"ima4", "", True)],
)
def test_aiff_c(codec: bytes, encoding: str, is_big_endian: bool) -> None:
    bits = 32 if codec == b"fl32" else 16
    rate = bytes.fromhex("400dbb80000000000000")  # 24000 Hz, in 80 bits
    common = struct.pack(">hIh", 2, 5, bits) + rate + codec + b"\0\0"
    content = b"FORM\0\0\0\0AIFC" + b"COMM" + struct.pack(">I", len(common)) + common
    content += b"SSND" + struct.pack(">III", 8 + 20, 0, 0)

    assert read_layout("aiff", io.BytesIO(content)) == Layout(encoding, is_big_endian, 2, 24000, len(content), 20)


@pytest.mark.parametrize("kind", ["wav", "w64", "aiff", "au", "caf"])
@pytest.mark.parametrize("size", [0, 3, 13, 30, 43])
def test_headers_that_are_cut_short(kind: str, size: int) -> None:
    content = encoded(SOUND, kind.upper())

    with pytest.raises(LayoutError):
        read_layout(kind, io.BytesIO(content[: min(size, 23)]))


def test_samples_before_their_description() -> None:
    content = encoded(SOUND, "WAV")

    with pytest.raises(LayoutError, match="its samples come before their description"):
        read_layout("wav", io.BytesIO(content[:12] + content[36:]))


def test_a_file_like_a_recorder_that_was_killed_leaves_it(tmp_path: Path) -> None:
    """A frame that was not written as a whole is left out."""
    content = wav(SOUND, 0, 0)[:-3]

    assert audio.read(_written(tmp_path / "a.wav", content)).samples.shape == (2, RATE - 1)


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
