"""The true extent of compressed files, found without decoding: MPEG audio frames, Ogg pages, FLAC headers.

libsndfile trusts the length in the first header, or estimates it. Files that were written into a pipe, or joined, have
more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

_CHUNK = 1 << 20

# kbit/s by index: MPEG 1 layers I, II and III; MPEG 2 and 2.5 layer I, layers II and III (ISO/IEC 11172-3, 13818-3)
_BITRATES = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


@dataclass(frozen=True)
class MpegExtent:
    """The frames of an MPEG audio file.

    Attributes:
        start: offset of the first frame.
        end: offset after the last complete frame.
        frames: number of frames, without the first if it is a Xing or Info header.
        frame_samples: samples per channel in a frame.
        declared: number of frames that the Xing or Info header declares; None if there is none.
        is_uniform: whether all frames have one sample rate and one number of channels, and nothing is between them.
        has_tail: whether what follows the last frame is neither tags nor the beginning of another frame.
    """

    start: int
    end: int
    frames: int
    frame_samples: int
    declared: int | None
    is_uniform: bool
    has_tail: bool

    @property
    def samples(self) -> int:
        """Samples per channel."""
        return self.frames * self.frame_samples


@dataclass(frozen=True)
class _Frame:
    size: int
    samples: int
    rate: int
    channels: int
    version: int


def id3_size(head: bytes) -> int:
    """The bytes of an ID3v2 tag at the start of a file; 0 if there is none."""
    if head[:3] != b"ID3" or len(head) < 10 or any(byte & 0x80 for byte in head[6:10]):
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 0x10 else 0)


def scan_mpeg(path: Path) -> MpegExtent:
    """Count the frames of an MPEG audio file to its end, and skip any data between them.

    Raises:
        OSError: the file cannot be read.
    """
    first: _Frame | None = None
    start, end, count, declared, is_uniform = 0, 0, 0, None, True
    with path.open("rb", buffering=1 << 16) as file:
        for position, frame in _mpeg_frames(file):
            if first is None:
                first, start, end = frame, position, position + frame.size
                file.seek(position)
                found, declared = _xing(file.read(min(frame.size, 1024)), frame)
                if found:
                    continue
            elif (frame.rate, frame.channels) != (first.rate, first.channels) or position != end:
                is_uniform = False
            end = position + frame.size
            count += 1
        has_tail = _has_tail(file, end)
    return MpegExtent(start, end, count, first.samples if first is not None else 0, declared, is_uniform, has_tail)


def _has_tail(file: BinaryIO, end: int) -> bool:
    """Whether a file of frames goes on with something else, on which libmpg123 gives up."""
    length = file.seek(0, 2)
    file.seek(max(end, length - 128))
    ends_with_tag = file.read(3) == b"TAG"
    file.seek(end)
    head = file.read(11)
    if not head or head[:3] in (b"ID3", b"TAG") or head[:8] == b"APETAGEX" or head == b"LYRICSBEGIN":
        return False
    return ends_with_tag or _mpeg_frame(head) is None


def _mpeg_frames(file: BinaryIO) -> Iterator[tuple[int, _Frame]]:
    """(offset, frame) of all complete frames; the file may be moved between them."""
    length = file.seek(0, 2)
    position = 0
    in_step = False
    while position + 4 <= length:
        file.seek(position)
        head = file.read(10)
        frame = _mpeg_frame(head)
        if frame is not None and position + frame.size > length:
            return
        if frame is not None and (in_step or _is_followed(file, position + frame.size, length)):
            yield position, frame
            position += frame.size
            in_step = True
            continue
        in_step = False
        tag = id3_size(head) or (128 if head[:3] == b"TAG" else 0)
        position = position + tag if tag else _next_sync(file, position + 1)


def _is_followed(file: BinaryIO, position: int, length: int) -> bool:
    """Whether another frame, a tag or the end of the file follows: a frame's mark alone occurs in any data."""
    if position >= length:
        return True
    file.seek(position)
    head = file.read(10)
    return _mpeg_frame(head) is not None or head[:3] in (b"ID3", b"TAG") or head[:8] == b"APETAGEX"


def _next_sync(file: BinaryIO, position: int) -> int:
    """The offset of the next byte that may begin a frame or a tag."""
    file.seek(position)
    while chunk := file.read(4096):
        found = [place for place in (chunk.find(mark) for mark in (b"\xff", b"ID3", b"TAG")) if place >= 0]
        if found:
            return position + min(found)
        position += max(1, len(chunk) - 2)
        file.seek(position)
        if len(chunk) < 3:
            break
    return 1 << 62


def _mpeg_frame(head: bytes) -> _Frame | None:
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate_index, rate_index = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate_index in (0, 15) or rate_index == 3:
        return None
    rate = _RATES[version][rate_index]
    bitrate = 1000 * _BITRATES[(1, layer) if version == 3 else (2, min(layer, 2))][bitrate_index]
    padding = head[2] >> 1 & 1
    channels = 1 if head[3] >> 6 == 3 else 2
    if layer == 1:
        return _Frame((12 * bitrate // rate + padding) * 4, 384, rate, channels, version)
    samples = 576 if layer == 3 and version != 3 else 1152
    return _Frame(samples // 8 * bitrate // rate + padding, samples, rate, channels, version)


def _xing(frame: bytes, header: _Frame) -> tuple[bool, int | None]:
    """Whether a frame is a Xing, Info or VBRI header, and the number of frames that it declares."""
    side = (32 if header.channels == 2 else 17) if header.version == 3 else (17 if header.channels == 2 else 9)
    for start in (4 + side, 6 + side):  # with a checksum after the header
        if frame[start : start + 4] in (b"Xing", b"Info"):
            has_count = len(frame) >= start + 12 and frame[start + 7] & 1
            return True, int.from_bytes(frame[start + 8 : start + 12], "big") if has_count else None
    if frame[36:40] == b"VBRI" and len(frame) >= 54:
        return True, int.from_bytes(frame[50:54], "big")
    return False, None


@dataclass(frozen=True)
class OggLink:
    """The streams of an Ogg file that begin together; others may follow, in a chain.

    Attributes:
        start: offset of the first page.
        codec: vorbis, opus, flac or speex, of the first stream; empty for others.
        streams: number of streams.
        is_reordered: whether channels are in the order of Vorbis; those of Opus need not have one.
    """

    start: int
    codec: str
    streams: int
    is_reordered: bool


def scan_ogg(path: Path) -> tuple[list[OggLink], bool]:
    """Find the streams of an Ogg file by the headers of its pages (RFC 3533).

    Returns:
        The links of the chain, and whether the file ends within a page.

    Raises:
        OSError: the file cannot be read.
    """
    links: list[OggLink] = []
    has_data, end = True, 0
    with path.open("rb", buffering=1 << 16) as file:
        length = file.seek(0, 2)
        for position, header, body, following in _ogg_pages(file):
            end = following
            is_first = bool(header[5] & 2)  # of a stream
            if is_first and has_data:
                file.seek(position + body)
                packet = file.read(19)
                codec = _ogg_codec(packet)
                links.append(
                    OggLink(position, codec, 1, codec == "vorbis" or (codec == "opus" and packet[18:] == b"\1"))
                )
            elif is_first:
                links[-1] = replace(links[-1], streams=links[-1].streams + 1)
            has_data = not is_first
    return links, end > length


def _ogg_pages(file: BinaryIO) -> Iterator[tuple[int, bytes, int, int]]:
    """(offset, header, size of the header, offset of the next page) of all pages."""
    position = 0
    while True:
        file.seek(position)
        header = file.read(27 + 255)
        if len(header) < 27:
            return
        if header[:4] != b"OggS":
            place = _find(file, b"OggS", position + 1)
            if place is None:
                return
            position = place
            continue
        body = 27 + header[26]
        following = position + body + sum(header[27:body])
        yield position, header[:27], body, following
        position = following


def _ogg_codec(packet: bytes) -> str:
    marks = {b"\x01vorbis": "vorbis", b"OpusHead": "opus", b"\x7fFLAC": "flac", b"Speex": "speex"}
    return next((name for mark, name in marks.items() if packet.startswith(mark)), "")


def scan_flac(path: Path) -> list[tuple[int, bool]]:
    """Find the streams of a FLAC file: several, if files were joined.

    Returns:
        (offset, whether its header declares a length) of each.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        found = []
        for start in find_all(path, rb"fLaC[\x00\x80]\x00\x00\x22", 0):
            file.seek(start)
            header = file.read(42)
            found.append((start, bool(int.from_bytes(header[21:26], "big") & 0xFFFFFFFFF)))
    return found


def _find(file: BinaryIO, mark: bytes, position: int) -> int | None:
    """The offset of a mark from a position on."""
    file.seek(position)
    held = b""
    while chunk := file.read(_CHUNK):
        held += chunk
        place = held.find(mark)
        if place >= 0:
            return position + place
        position += max(0, len(held) - len(mark) + 1)
        held = held[1 - len(mark) :]
    return None


def find_all(path: Path, pattern: bytes, position: int) -> Iterator[int]:
    """The offsets of matches, of at most 64 bytes each, from a position on.

    Args:
        path: the file.
        pattern: a regular expression.
        position: where to begin.

    Raises:
        OSError: the file cannot be read.
    """
    expression = re.compile(pattern, re.DOTALL)
    with path.open("rb") as file:
        file.seek(position)
        held = b""
        while chunk := file.read(_CHUNK):
            held += chunk
            begun = max(0, len(held) - 64)  # what begins later is looked for again, with the next chunk
            is_last = len(chunk) < _CHUNK
            for match in expression.finditer(held):
                if is_last or match.start() < begun:
                    yield position + match.start()
            position += begun
            held = held[begun:]


def count_voc_blocks(path: Path) -> int:
    """The number of blocks with samples in a Creative Voice file.

    Raises:
        OSError: the file cannot be read.
    """
    count = 0
    with path.open("rb") as file:
        file.seek(20)
        position = int.from_bytes(file.read(2), "little")
        while True:
            file.seek(position)
            head = file.read(4)
            if len(head) < 4 or head[0] == 0:
                return count
            count += head[0] in (1, 2, 9)
            position += 4 + int.from_bytes(head[1:], "little")


def is_cut(path: Path, kind: str) -> bool:
    """Whether a file ends within a part whose length it declares.

    Args:
        path: the file.
        kind: mp4 or matroska; other kinds declare no such lengths.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        length = file.seek(0, 2)
        if kind == "mp4":
            return _is_mp4_cut(file, length)
        return kind == "matroska" and _is_matroska_cut(file, length)


def _is_mp4_cut(file: BinaryIO, length: int) -> bool:
    """By the boxes of a file (ISO/IEC 14496-12, 4.2)."""
    position = 0
    while position < length:
        file.seek(position)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if size == 0:  # to the end of the file
            return False
        position += max(size, 8)
    return position > length


def _is_matroska_cut(file: BinaryIO, length: int) -> bool:
    """By the size of the segment (RFC 8794 and 9559)."""
    file.seek(4)
    size = _ebml_size(file)
    if size is None:
        return False
    file.seek(size, 1)
    if file.read(4) != b"\x18\x53\x80\x67":
        return False
    size = _ebml_size(file)
    return size is not None and file.tell() + size > length


def _ebml_size(file: BinaryIO) -> int | None:
    """An element's size; None if it is not known."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    size = int.from_bytes(bytes([first[0] & (0xFF >> (more + 1))]) + file.read(more), "big")
    return None if size == (1 << 7 * (more + 1)) - 1 else size
