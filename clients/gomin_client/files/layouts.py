"""Where the samples of an uncompressed file are: WAV, RF64, Wave64, AIFF, AU and CAF headers.

Programs that write into a pipe, and recorders that were killed, leave a length of 0 or a very large one in the header.
libsndfile believes some of these. Here, the samples then extend to the end of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

_WAV_CODECS = {
    (1, 1): "PCM_U8",
    (1, 2): "PCM_16",
    (1, 3): "PCM_24",
    (1, 4): "PCM_32",
    (3, 4): "FLOAT",
    (3, 8): "DOUBLE",
    (6, 1): "ALAW",
    (7, 1): "ULAW",
}
_EXTENSIBLE = 0xFFFE
_MPEG = (0x50, 0x55)  # libsndfile only estimates the number of their samples
_SIGNED = {1: "PCM_S8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}
_AU_CODECS = {1: "ULAW", 2: "PCM_S8", 3: "PCM_16", 4: "PCM_24", 5: "PCM_32", 6: "FLOAT", 7: "DOUBLE", 27: "ALAW"}
_AIFC_CODECS = {
    b"fl32": "FLOAT",
    b"FL32": "FLOAT",
    b"fl64": "DOUBLE",
    b"FL64": "DOUBLE",
    b"ulaw": "ULAW",
    b"ULAW": "ULAW",
    b"alaw": "ALAW",
    b"ALAW": "ALAW",
    b"raw ": "PCM_U8",
}
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")


class LayoutError(Exception):
    """A header that is damaged, or of a kind that is not known here."""


class Forward(Protocol):
    """A file that need not be able to seek."""

    def read(self, size: int, /) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""


@dataclass(frozen=True)
class Layout:
    """Where the samples are and how they are encoded.

    Attributes:
        encoding: libsndfile's name of the encoding; empty if it is compressed.
        is_big_endian: byte order.
        channels: number of channels.
        rate: sample rate in Hz.
        start: offset of the samples, in bytes.
        size: length of the samples, in bytes; None if the header does not say.
    """

    encoding: str
    is_big_endian: bool
    channels: int
    rate: int
    start: int
    size: int | None


def read_layout(name: str, file: Forward) -> Layout:
    """Read a header up to the first sample.

    Args:
        name: the kind of the file, see `contents`: wav, w64, aiff, au or caf.
        file: at its first byte.

    Raises:
        LayoutError: the header is damaged, or its samples come before their description.
    """
    parse = {"wav": _wav, "w64": _w64, "aiff": _aiff, "au": _au, "caf": _caf}[name]
    try:
        layout = parse(_Header(file))
    except (struct.error, OverflowError, ValueError) as error:  # of fields that are cut short, or no numbers
        raise LayoutError("its header is cut short") from error
    if layout.channels < 1:
        raise LayoutError("its header has no channels")
    return layout


@dataclass
class _Header:
    """Reads forward and counts the bytes.

    Attributes:
        file: it is read from its first byte on.
        position: number of bytes read.
    """

    file: Forward
    position: int = 0

    def take(self, size: int) -> bytes:
        data = self.file.read(size)
        self.position += len(data)
        if len(data) < size:
            raise LayoutError("its header is cut short")
        return data

    def chunk(self, size: int) -> bytes:
        """The first bytes of a chunk, which is read as a whole."""
        data = self.take(min(size, 64))
        left = size - len(data)
        while left > 0:
            left -= len(self.take(min(left, 1 << 16)))
        return data

    def unpack(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))


def _known(size: int) -> int | None:
    """A length in a header; None for a value that programs write if they do not know the length."""
    # 0x7FFFFFFF and 0xFFFFFFFF, both less the size of a header or rounded down, and 0x80000000
    is_unknown = size == 0 or 0x7FFF0000 <= size <= 0x80001000 or size >= 0xFFFF0000
    return None if is_unknown else size


def _wav(file: _Header) -> Layout:
    magic = file.take(4)
    order = ">" if magic == b"RIFX" else "<"
    file.take(8)
    is_large, large = magic in (b"RF64", b"BW64"), 0
    described: tuple[str, int, int] | None = None
    while True:
        name, size = file.take(4), file.unpack(f"{order}I")[0]
        if name == b"data":
            if described is None:
                raise LayoutError("its samples come before their description")
            encoding, channels, rate = described
            length = _known(size)
            if is_large and size == 0xFFFFFFFF:  # the 64-bit length replaces it
                length = large if 0 < large < 1 << 62 else None
            if encoding == "MPEG":
                encoding, length = "", None
            return Layout(encoding, order == ">", channels, rate, file.position, length)
        if name == b"ds64":
            _, large = file.unpack("<QQ")
            size = max(0, size - 16)
        body = file.chunk(size + size % 2)
        if name == b"fmt ":
            described = _wav_format(body[:size], order)


def _wav_format(chunk: bytes, order: str) -> tuple[str, int, int]:
    """Encoding, channels, sample rate."""
    codec, channels, rate, _, block, bits = struct.unpack(f"{order}HHIIHH", chunk[:16])
    if codec == _EXTENSIBLE and len(chunk) >= 26:
        codec = struct.unpack(f"{order}H", chunk[24:26])[0]
    if codec in _MPEG:
        return "MPEG", channels, rate
    width = (bits + 7) // 8
    return _WAV_CODECS.get((codec, width), "") if block == width * channels else "", channels, rate


def _w64(file: _Header) -> Layout:
    file.take(40)  # riff, its size, wave
    described: tuple[str, int, int] | None = None
    while True:
        name, tail, size = file.take(4), file.take(12), file.unpack("<Q")[0]
        if tail != _W64_TAIL:
            raise LayoutError("its header is damaged")
        if name == b"data":
            if described is None:
                raise LayoutError("its samples come before their description")
            encoding, channels, rate = described
            length = None if size <= 24 or size >= 1 << 62 else _known(size - 24)
            return Layout(encoding, False, channels, rate, file.position, length)
        if size < 24:
            raise LayoutError("its header is damaged")
        size -= 24
        body = file.chunk(size + -size % 8)
        if name == b"fmt ":
            described = _wav_format(body[:size], "<")


def _aiff(file: _Header) -> Layout:
    file.take(12)
    described: tuple[str, bool, int, int] | None = None
    while True:
        name, size = file.take(4), file.unpack(">I")[0]
        if name == b"SSND":
            if described is None:
                raise LayoutError("its samples come before their description")
            offset, _ = file.unpack(">II")
            file.chunk(offset)
            length = None if size <= 8 + offset else _known(size)
            encoding, is_big_endian, channels, rate = described
            known = None if length is None else length - 8 - offset
            return Layout(encoding, is_big_endian, channels, rate, file.position, known)
        body = file.chunk(size + size % 2)
        if name == b"COMM":
            described = _aiff_format(body[:size])


def _aiff_format(chunk: bytes) -> tuple[str, bool, int, int]:
    """Encoding, byte order, channels, sample rate."""
    channels, _, bits, exponent, mantissa = struct.unpack(">hIhHQ", chunk[:18])
    rate = int(mantissa * 2.0 ** ((exponent & 0x7FFF) - 16383 - 63))
    compression = chunk[18:22] or b"NONE"
    width = (bits + 7) // 8
    if compression in (b"NONE", b"twos", b"sowt", b"in24", b"in32"):
        return _SIGNED.get(width, ""), compression != b"sowt", channels, rate
    return _AIFC_CODECS.get(compression, ""), True, channels, rate


def _au(file: _Header) -> Layout:
    if file.take(4) != b".snd":
        raise LayoutError("its byte order is reversed")
    start, size, codec, rate, channels = file.unpack(">IIIII")
    file.chunk(max(0, start - file.position))
    return Layout(_AU_CODECS.get(codec, ""), True, channels, rate, file.position, _known(size))


def _caf(file: _Header) -> Layout:
    file.take(8)
    described: tuple[str, bool, int, int] | None = None
    while True:
        name, size = file.take(4), file.unpack(">q")[0]
        if name == b"data":
            if described is None:
                raise LayoutError("its samples come before their description")
            file.take(4)  # edit count
            encoding, is_big_endian, channels, rate = described
            return Layout(encoding, is_big_endian, channels, rate, file.position, size - 4 if size > 4 else None)
        if size < 0:
            raise LayoutError("its header is damaged")
        body = file.chunk(size)
        if name == b"desc":
            described = _caf_format(body)


def _caf_format(chunk: bytes) -> tuple[str, bool, int, int]:
    """Encoding, byte order, channels, sample rate."""
    rate, codec, flags, packet, frames, channels, bits = struct.unpack(">d4sIIIII", chunk[:32])
    width = (bits + 7) // 8
    encoding = ""
    if frames == 1 and packet == width * channels:
        if codec == b"lpcm":
            encoding = {4: "FLOAT", 8: "DOUBLE"}.get(width, "") if flags & 1 else _SIGNED.get(width, "")
        else:
            encoding = {b"alaw": "ALAW", b"ulaw": "ULAW"}.get(codec, "")
    return encoding, not flags & 2, channels, int(rate)


_MOST_CHUNKS = 1000
_LEAST_REST = 1024  # bytes; less may be padding


@dataclass(frozen=True)
class _Chunks:
    """How a container is made of chunks.

    Attributes:
        layout: of a chunk's name and size.
        alignment: of chunks, in bytes.
        whole: the names that a whole file begins with.
    """

    layout: str
    alignment: int
    whole: tuple[bytes, ...]


_CHUNKS = {
    "wav": _Chunks("<4sI", 2, (b"RIFF", b"RIFX", b"RF64", b"BW64")),
    "aiff": _Chunks(">4sI", 2, (b"FORM",)),
    "caf": _Chunks(">4sq", 1, (b"caff",)),
}
# the beginning of a whole file, where it is looked for among samples
MARKS = {
    "wav": rb"(?:RIFF|RF64|BW64)....WAVE",
    "w64": rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb",
    "aiff": rb"FORM....AIF[FC]",
    "au": rb"\.snd\x00\x00......\x00\x00\x00[\x01-\x1b]",
    "caf": rb"caff\x00\x01..desc",
}


def is_followed_by_another(path: Path, kind: str, layout: Layout, length: int) -> bool:
    """Whether another file of the same kind follows the samples and other chunks.

    Args:
        path: the file.
        kind: see `read_layout`.
        layout: of its samples, whose length is known.
        length: of the file, in bytes.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if kind == "w64":
            file.seek(16)
            file.seek(min(int.from_bytes(file.read(8), "little"), length))
            return file.read(4) == b"riff"
        if kind not in _CHUNKS:
            return False
        position = layout.start + (layout.size or 0)
        return any(mark in _CHUNKS[kind].whole for mark, _ in _chunks(file, kind, position, length))


def is_chunks(path: Path, kind: str, position: int, length: int) -> bool:
    """Whether chunks, not samples, fill the file from a position to its end.

    Args:
        path: the file.
        kind: see `read_layout`.
        position: offset of the first chunk.
        length: of the file, in bytes.

    Raises:
        OSError: the file cannot be read.
    """
    if kind not in _CHUNKS or position >= length:
        return False
    with path.open("rb") as file:
        end = max((following for _, following in _chunks(file, kind, position, length)), default=0)
    return end - length in range(_CHUNKS[kind].alignment)


def has_more(path: Path, kind: str, position: int, length: int) -> bool:
    """Whether something follows the samples that is neither chunks nor padding.

    Args:
        path: the file.
        kind: see `read_layout`.
        position: offset after the samples.
        length: of the file, in bytes.

    Raises:
        OSError: the file cannot be read.
    """
    if kind not in _CHUNKS or length - position < _LEAST_REST:
        return False
    with path.open("rb") as file:
        file.seek(position)
        is_padding = not file.read(_LEAST_REST).strip(b"\0")
        start = position + -position % _CHUNKS[kind].alignment
        return not is_padding and not any(True for _ in _chunks(file, kind, start, length))


def _chunks(file: BinaryIO, kind: str, position: int, length: int) -> Iterator[tuple[bytes, int]]:
    """(name, offset of the next) of chunks, as far as there are any."""
    known = _CHUNKS[kind]
    for _ in range(_MOST_CHUNKS):
        file.seek(position)
        head = file.read(struct.calcsize(known.layout))
        if len(head) < struct.calcsize(known.layout) or not head[:4].decode("latin-1").isprintable():
            return
        name, size = struct.unpack(known.layout, head)
        position += len(head) + size
        position += -position % known.alignment
        yield name, position
        if size < 0 or position > length:
            return
