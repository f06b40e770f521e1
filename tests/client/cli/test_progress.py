"""The progress bar, in a terminal."""

import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import soundfile

from tests.client.cli.conftest import RATE, noise
from tests.support import BIN

SECONDS = 8


@contextmanager
def in_terminal(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """gomin-client with a terminal as its standard error, and the terminal's other end."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [BIN / "gomin-client", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=end,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(end)
    try:
        yield process, terminal
    finally:
        process.kill()
        process.communicate()
        os.close(terminal)


def read_until(terminal: int, words: bytes | None = None) -> bytes:
    """What a terminal shows until these words, or until the process has ended."""
    shown = b""
    while words is None or words not in shown:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the process has ended
            break
        if not data:
            break
        shown += data
    return shown


def shown_in_terminal(*arguments: str | Path, stdin: bytes = b"") -> str:
    """What gomin-client prints to a terminal as its standard error, without control sequences."""
    with in_terminal(*arguments) as (process, terminal):
        assert process.stdin is not None
        process.stdin.write(stdin)
        process.stdin.close()
        shown = read_until(terminal)
        assert process.wait(timeout=300) == 0, shown
    return without_controls(shown)


def without_controls(shown: bytes) -> str:
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one recording."""
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/a.wav", noise(0, samples=SECONDS * RATE), RATE)
    return tmp_path


def test_a_single_file_shows_its_seconds(tiny_repository: Path, folder: Path) -> None:
    """A batch of one file shows the same as the file."""
    reconstruct = ("reconstruct", "--url", f"local:{tiny_repository}")
    for command, given, output in (
        (reconstruct, "in/a.wav", "out.wav"),
        (reconstruct, "in", "out"),
        (("analyze",), "in/a.wav", "out.npz"),
    ):
        shown = shown_in_terminal(*command, folder / given, "-o", folder / output)

        assert re.search(rf"{SECONDS}\.0 of {SECONDS}\.0 s of audio \d+\.\d\d × real time ETA", shown), shown


def test_a_stream_shows_seconds_only(tiny_repository: Path, folder: Path) -> None:
    recording = (folder / "in/a.wav").read_bytes()
    arguments = ("reconstruct", "-", "-o", "-", "--stream", "--url", f"local:{tiny_repository}")

    shown = shown_in_terminal(*arguments, stdin=recording)

    assert f"{SECONDS}.0 s of audio" in shown
    assert not re.search(r"\d of \d", shown)


def test_a_batch_shows_its_files(tiny_repository: Path, folder: Path) -> None:
    (folder / "in/b.wav").write_bytes((folder / "in/a.wav").read_bytes())

    shown = shown_in_terminal("reconstruct", folder / "in", "-o", folder / "out", "--url", f"local:{tiny_repository}")

    assert "2/2" in shown
    assert not re.search(r"\d of \d", shown)


def test_ctrl_c_ends_the_bar_of_a_stream(tiny_repository: Path, folder: Path) -> None:
    """The cursor is visible again, and the message has a line of its own."""
    command = ("reconstruct", "-", "-o", "-", "--stream", "--url", f"local:{tiny_repository}")
    with in_terminal(*command) as (process, terminal):
        assert process.stdin is not None
        process.stdin.write((folder / "in/a.wav").read_bytes()[:-RATE])
        process.stdin.flush()  # it waits for the rest
        shown = read_until(terminal, b" s of audio")
        process.send_signal(signal.SIGINT)
        shown += read_until(terminal)
        assert process.wait(timeout=300) == 128 + signal.SIGINT, shown

    assert shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h") == 1
    last = without_controls(shown).splitlines()[-1]
    assert last.startswith("gomin-client: interrupted; ")
    assert b"Traceback" not in shown
