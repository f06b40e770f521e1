"""The decoder that uses FFmpeg: block sizes, sample formats, and what it says about files that are odd."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from gomin_client.files.audio import AudioReader, SoundFileDecoder
from gomin_client.files.decoders import DecodingError
from gomin_client.files.ffmpeg import FFmpegDecoder, ResumingDecoder
from tests.client.files.recordings import RATE, encoded, sweep

SOUND = sweep(channels=2)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def everything(decoder: FFmpegDecoder | ResumingDecoder, size: int = 5000) -> NDArray[np.float32]:
    parts = []
    while len(part := decoder.read(size)):
        parts.append(part)
    decoder.close()
    return np.concatenate(parts)


@pytest.mark.parametrize("size", [1, 999, 4096, 10**6])
def test_blocks_of_any_size(tmp_path: Path, size: int) -> None:
    path = written(tmp_path / "a", encoded(SOUND[:4000], "FLAC"))
    decoder = FFmpegDecoder(path, "flac")

    assert (decoder.rate, decoder.channels) == (RATE, 2)
    blocks = []
    while len(block := decoder.read(size)):
        blocks.append(block)
    decoder.close()

    assert {len(block) for block in blocks[:-1]} <= {size}
    np.testing.assert_allclose(np.concatenate(blocks), SOUND[:4000], rtol=0, atol=1e-4)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_sample_formats_are_scaled_as_in_libsndfile(tmp_path: Path, subtype: str) -> None:
    path = written(tmp_path / "a", encoded(SOUND, "WAV", subtype))

    samples = everything(FFmpegDecoder(path, "wav"))

    np.testing.assert_allclose(samples, SoundFileDecoder(path).read(10**6), rtol=0, atol=1e-7)


def write_streams(path: Path, *kinds: str) -> None:
    with av.open(path, "w", format="matroska") as container:
        streams = []
        for kind in kinds:
            if kind == "video":
                streams.append(container.add_stream("mpeg4", rate=25, width=64, height=64, pix_fmt="yuv420p"))
            else:
                streams.append(container.add_stream("pcm_s16le", rate=RATE, layout="mono"))
        container.start_encoding()
        for kind, stream in zip(kinds, streams, strict=True):
            if kind == "video":
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            else:
                frame = av.AudioFrame.from_ndarray(np.full((1, 4000), 1000, np.int16), format="s16", layout="mono")
                frame.sample_rate = RATE
            for made in (frame, None):
                container.mux(stream.encode(made))


def test_the_sound_of_a_film(tmp_path: Path) -> None:
    write_streams(tmp_path / "a", "video", "audio")
    decoder = FFmpegDecoder(tmp_path / "a", "matroska")

    assert everything(decoder).shape == (4000, 1)
    assert decoder.defect() == ""


def test_several_streams_are_reported(tmp_path: Path) -> None:
    write_streams(tmp_path / "a", "audio", "audio")
    decoder = FFmpegDecoder(tmp_path / "a", "matroska")

    assert len(decoder.read(10**6)) == 4000
    assert decoder.defect() == "contains 2 audio streams; the first was read"


def test_no_sound(tmp_path: Path) -> None:
    write_streams(tmp_path / "a", "video")

    with pytest.raises(DecodingError, match="it contains no audio"):
        FFmpegDecoder(tmp_path / "a", "matroska")


@pytest.mark.parametrize("demuxer", ["mp3", "matroska", "mp4", "ogg", "flac"])
def test_what_is_no_such_file(tmp_path: Path, demuxer: str) -> None:
    with pytest.raises(DecodingError, match=r"is damaged, or of an? .*not supported|contains no audio"):
        FFmpegDecoder(written(tmp_path / "a", bytes(range(256)) * 20), demuxer)


def test_names_and_playlists_lead_to_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg takes some names for protocols, and opens what playlists name."""
    monkeypatch.chdir(tmp_path)
    secret = written(tmp_path / "secret.flac", encoded(SOUND, "FLAC"))
    named = written(Path("concat:secret.flac"), b"nothing")
    playlist = written(Path("a.m4a"), f"#EXTM3U\n#EXTINF:1,\n{secret}\n".encode())

    for path in (named, playlist):
        for demuxer in ("mp4", "flac"):
            with pytest.raises(DecodingError):
                FFmpegDecoder(path, demuxer)


class TestDamage:
    def test_packets_that_cannot_be_decoded_are_reported(self, tmp_path: Path) -> None:
        content = bytearray(encoded(sweep(20), "MP3"))
        for place in range(2000, len(content) - 2000, 700):
            content[place : place + 40] = b"\xff" * 40
        decoder = FFmpegDecoder(written(tmp_path / "a", bytes(content)), "mp3")

        assert len(everything(decoder)) > 5 * RATE
        assert "is damaged; " in decoder.defect()

    def test_flac_goes_on_after_what_libsndfile_does_not_read(self, tmp_path: Path) -> None:
        sound = sweep(10)
        content = bytearray(encoded(sound, "FLAC"))
        middle = len(content) // 2
        content[middle : middle + 20000] = bytes(20000)
        path = written(tmp_path / "a.flac", bytes(content))

        with AudioReader(path) as reader:
            samples = np.concatenate(list(reader.blocks()), axis=1)[0]

        # what comes before the damage is where it was, and the end is there
        np.testing.assert_allclose(samples[: 4 * RATE], sound[: 4 * RATE, 0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(samples[-RATE:], sound[-RATE:, 0], rtol=0, atol=1e-4)
        assert "is truncated" in reader.warning or "is damaged" in reader.warning
