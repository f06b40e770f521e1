"""Parts of files and pipes, as files."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gomin_client.files.sections import Pipe, PipeSection, Section


def test_parts_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    section = Section(tmp_path / "a", [(1, 4), (6, 8)])

    assert section.read(100) == b"12367"
    assert section.read(1) == b""
    assert section.seek(2) == section.tell() == 2
    assert section.read(2) == b"36"
    assert section.seek(-1, io.SEEK_END) == 4
    assert section.read(-1) == b"7"
    assert section.seek(-5, io.SEEK_CUR) == 0
    section.seek(-3)
    assert section.read(2) == b""
    section.close()


@contextmanager
def pipe_with(content: bytes) -> Iterator[Pipe]:
    out, into = os.pipe()
    os.write(into, content)
    os.close(into)
    yield Pipe(out)
    os.close(out)


def test_a_pipe_can_be_looked_into() -> None:
    with pipe_with(b"0123456789") as pipe:
        assert pipe.peek(4) == b"0123"
        assert pipe.read(2) == b"01"
        assert pipe.peek(100) == b"23456789"
        assert pipe.read(5) == b"23456"
        assert pipe.read(5) == b"789"
        assert pipe.peek(1) == pipe.read(1) == b""


def test_a_part_of_a_pipe_is_read_forward_only() -> None:
    with pipe_with(b"0123456789") as pipe:
        section = PipeSection(pipe, 4)
        assert section.seek(0, io.SEEK_END) == 4
        assert section.read(1) == b""
        section.seek(0)
        assert section.read(3) == b"012"
        assert section.read(3) == b"3"
        assert (section.missing, pipe.read(1)) == (0, b"4")

        rest = PipeSection(pipe, 10)
        assert rest.read(10) == b"56789"
        assert rest.missing == 5


def test_a_pipe_without_an_end() -> None:
    with pipe_with(b"01") as pipe:
        section = PipeSection(pipe, None)
        assert section.seek(0, io.SEEK_END) > 1 << 60
        section.seek(0)
        assert section.read(10) == b"01"
        assert (section.read(10), section.missing) == (b"", 0)
