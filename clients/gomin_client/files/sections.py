"""Parts of files and pipes, in the form of files that audio libraries take."""

from __future__ import annotations

import io
import os
import select
from collections.abc import Sequence
from pathlib import Path

_ENDLESS = 1 << 62  # the length of a pipe, for libraries that ask for one
_PAUSE_S = 0.5


class Section:
    """Parts of a file, one after the other, as a file.

    libsndfile calls these methods; errors in them would be lost, so they return what there is.
    """

    def __init__(self, path: Path, ranges: Sequence[tuple[int, int]]) -> None:
        """Open the file.

        Args:
            path: the file.
            ranges: offsets of the first byte and after the last byte of each part.

        Raises:
            OSError: it cannot be opened.
        """
        self._file = path.open("rb")
        self._ranges = ranges
        self._length = sum(end - start for start, end in ranges)
        self._position = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of files."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        return self._position

    def tell(self) -> int:
        """As of files."""
        return self._position

    def read(self, size: int) -> bytes:
        """As of files."""
        parts = []
        first = 0  # position of the range
        size = size if size >= 0 else self._length
        for start, end in self._ranges:
            inside = self._position - first
            if size > 0 and 0 <= inside < end - start:
                self._file.seek(start + inside)
                parts.append(self._file.read(min(size, end - start - inside)))
                self._position += len(parts[-1])
                size -= len(parts[-1])
            first += end - start
        return b"".join(parts)

    def close(self) -> None:
        """As of files."""
        self._file.close()


class Pipe:
    """A pipe that is read forward, with a look ahead."""

    def __init__(self, descriptor: int) -> None:
        """Read from a descriptor, which is not closed."""
        self._descriptor = descriptor
        self._held = b""

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, which remain to be read; fewer at the end."""
        while len(self._held) < size and (data := os.read(self._descriptor, size - len(self._held))):
            self._held += data
        return self._held[:size]

    def peek_ready(self, size: int) -> bytes:
        """`peek`, of what arrives without a pause."""
        while len(self._held) < size and select.select([self._descriptor], [], [], _PAUSE_S)[0]:
            data = os.read(self._descriptor, size - len(self._held))
            if not data:
                break
            self._held += data
        return self._held[:size]

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes; fewer at the end."""
        parts = [self._held[:size]]
        self._held = self._held[size:]
        missing = size - len(parts[0])
        while missing > 0 and (data := os.read(self._descriptor, missing)):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)


class PipeSection:
    """The next bytes of a pipe, as a file: its position can be asked for, but not changed.

    Attributes:
        missing: bytes that were announced and did not come, once the pipe has ended.
    """

    def __init__(self, pipe: Pipe, size: int | None) -> None:
        """Take bytes of a pipe.

        Args:
            pipe: the pipe.
            size: number of bytes; None for all.
        """
        self._pipe = pipe
        self._size = size
        self._position = self._shown = 0
        self.missing = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Shows another position; reads are possible at the true one only."""
        length = _ENDLESS if self._size is None else self._size
        self._shown = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._shown, io.SEEK_END: length}[whence]
        return self._shown

    def tell(self) -> int:
        """The position that is shown."""
        return self._shown

    def read(self, size: int) -> bytes:
        """As of files."""
        if self._shown != self._position:
            return b""
        wanted = size if self._size is None else min(size, self._size - self._position)
        data = self._pipe.read(wanted)
        self._position = self._shown = self._position + len(data)
        if self._size is not None and len(data) < wanted:
            self.missing = self._size - self._position
        return data

    def close(self) -> None:
        """Leaves the pipe open."""
