"""The extent of compressed files, which is found without decoding them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gomin_client.files import scanning
from tests.client.files import recordings
from tests.client.files.recordings import RATE, encoded, sweep

SOUND = sweep()
MP3 = encoded(SOUND, "MP3")


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


class TestMpeg:
    def test_the_frames_that_the_header_declares(self, tmp_path: Path) -> None:
        extent = scanning.scan_mpeg(written(tmp_path / "a", MP3))

        assert extent.declared == extent.frames
        assert (extent.start, extent.end, extent.frame_samples) == (0, len(MP3), 576)
        assert RATE <= extent.samples <= RATE + 4 * 576
        assert extent.is_uniform

    def test_without_a_header(self, tmp_path: Path) -> None:
        whole = scanning.scan_mpeg(written(tmp_path / "a", MP3))
        extent = scanning.scan_mpeg(written(tmp_path / "b", recordings.mp3_from_a_pipe(SOUND)))

        assert (extent.declared, extent.frames) == (None, whole.frames)

    def test_junk_and_tags_are_passed_over(self, tmp_path: Path) -> None:
        whole = scanning.scan_mpeg(written(tmp_path / "a", MP3))
        tag = b"ID3\x04\x00\x00\x00\x00\x01\x48" + b"\xff\xfb\x90\x00" * 50
        content = tag + b"\xff\x00\xff" + MP3 + b"\0" * 70000 + MP3 + b"TAG" + b"\xff" * 125

        extent = scanning.scan_mpeg(written(tmp_path / "b", content))

        assert extent.start == len(tag) + 3
        assert extent.frames == 2 * whole.frames + 1  # the second header is a frame like others
        assert not extent.is_uniform

    def test_a_frame_that_is_cut_is_not_counted(self, tmp_path: Path) -> None:
        whole = scanning.scan_mpeg(written(tmp_path / "a", MP3))

        assert scanning.scan_mpeg(written(tmp_path / "b", MP3[:-1])).frames == whole.frames - 1

    def test_another_rate_is_noticed(self, tmp_path: Path) -> None:
        content = MP3 + encoded(SOUND, "MP3", rate=22050)

        assert not scanning.scan_mpeg(written(tmp_path / "a", content)).is_uniform

    def test_no_frames(self, tmp_path: Path) -> None:
        for content in (b"", b"\xff", b"\xff\xfb\x90", b"\xff" * 5000, bytes(5000)):
            assert scanning.scan_mpeg(written(tmp_path / "a", content)).frames == 0


class TestOgg:
    def test_links_of_a_chain(self, tmp_path: Path) -> None:
        parts = [encoded(SOUND, "OGG"), encoded(SOUND, "OGG", "OPUS"), encoded(SOUND, "OGG")]

        links, is_cut = scanning.scan_ogg(written(tmp_path / "a", b"".join(parts)))

        assert [link.codec for link in links] == ["vorbis", "opus", "vorbis"]
        assert [link.start for link in links] == [0, len(parts[0]), len(parts[0]) + len(parts[1])]
        assert [link.streams for link in links] == [1, 1, 1]
        assert not is_cut

    def test_junk_between_pages_and_a_page_that_is_cut(self, tmp_path: Path) -> None:
        one = encoded(SOUND, "OGG")

        links, is_cut = scanning.scan_ogg(written(tmp_path / "a", b"junk" + one + b"Ogg" + one[:-1]))

        assert [link.start for link in links] == [4, len(one) + 7]
        assert is_cut


def test_flac_streams(tmp_path: Path) -> None:
    whole, stream = encoded(SOUND, "FLAC"), recordings.flac_from_a_pipe(SOUND)

    assert scanning.scan_flac(written(tmp_path / "a", whole)) == [(0, True)]
    assert scanning.scan_flac(written(tmp_path / "b", stream + whole)) == [(0, False), (len(stream), True)]


@pytest.mark.parametrize("place", [-5, -1, 0, 1, 40])
def test_marks_at_the_seam_of_two_reads(tmp_path: Path, place: int) -> None:
    start = scanning._CHUNK + place
    content = bytes(start) + b"mark" + bytes(100) + b"mark"

    assert list(scanning.find_all(written(tmp_path / "a", content), b"m.rk", 0)) == [start, start + 104]
    assert list(scanning.find_all(tmp_path / "a", b"m.rk", start + 1)) == [start + 104]


def test_blocks_of_creative_voice_files(tmp_path: Path) -> None:
    header = b"Creative Voice File\x1a" + b"\x1a\x00\x0a\x01\x29\x11"
    block, end = b"\x01\x06\x00\x00\xa5\x00" + bytes(4), b"\0"

    assert scanning.count_voc_blocks(written(tmp_path / "a", header + block + end)) == 1
    assert scanning.count_voc_blocks(written(tmp_path / "b", header + block * 3 + b"\x05\x02\0\0Hi" + end)) == 3


def test_mpeg_4_that_is_cut(tmp_path: Path) -> None:
    recordings.mp4(tmp_path / "a.mp4", SOUND)
    content = (tmp_path / "a.mp4").read_bytes()

    assert not scanning.is_cut(tmp_path / "a.mp4", "mp4")
    assert scanning.is_cut(written(tmp_path / "b.mp4", content[:-1]), "mp4")
    assert not scanning.is_cut(tmp_path / "b.mp4", "aac")


@pytest.mark.parametrize(
    ("segment", "is_cut"),
    [(b"\x84abcd", False), (b"\x85abcd", True), (b"\xffabcd", False), (b"\x40\x05abcd", True), (b"", False)],
)
def test_matroska_that_is_cut(tmp_path: Path, segment: bytes, is_cut: bool) -> None:
    content = b"\x1a\x45\xdf\xa3\x82ab" + b"\x18\x53\x80\x67" + segment

    assert scanning.is_cut(written(tmp_path / "a", content), "matroska") == is_cut
