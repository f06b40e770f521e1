"""The headers of FLAC frames, which give the true length of a file whose own header is wrong (RFC 9639, 9.1)."""

from __future__ import annotations

import re
from pathlib import Path

_TAIL = 1 << 20  # bytes; a frame is mostly smaller than 64 KiB


def last_frame_start(path: Path, start: int) -> int | None:
    """The position of a FLAC file's last frame, in samples, as the header of that frame gives it.

    Args:
        path: the file, of a single stream.
        start: offset of the stream.

    Returns:
        None if there is no header of a frame at the end of the file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(start + 8)
        block = int.from_bytes(file.read(2), "big")  # samples of a frame
        file.seek(max(start, file.seek(0, 2) - _TAIL))
        tail = file.read()
    for match in reversed(list(re.finditer(rb"\xff[\xf8\xf9]", tail))):
        head = tail[match.start() : match.start() + 16]
        number = _number(head)
        if number is not None:
            return number if head[1] & 1 else number * block
    return None


def _number(head: bytes) -> int | None:
    """The number in a frame's header: of the frame, or of its first sample. None if it is not a frame's header."""
    if len(head) < 6 or head[2] >> 4 == 0 or head[2] & 15 == 15 or head[3] >> 4 > 10 or head[3] & 1:
        return None
    ones = 8 - (head[4] ^ 0xFF).bit_length()  # the number is coded as in UTF-8
    count = max(1, ones)
    size = 4 + count + {6: 1, 7: 2}.get(head[2] >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if ones in (1, 8) or len(head) <= size or _crc8(head[:size]) != head[size]:
        return None
    number = head[4] & (0x7F >> ones)
    for byte in head[5 : 4 + count]:
        number = number << 6 | byte & 0x3F
    return number


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1) ^ 0x107 if value & 0x80 else value << 1
    return value
