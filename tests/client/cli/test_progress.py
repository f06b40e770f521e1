"""The progress bar, in a terminal."""

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
import soundfile

from tests.client.cli.conftest import RATE, noise
from tests.support import BIN

SECONDS = 8


def shown_in_terminal(*arguments: str | Path, stdin: bytes = b"") -> str:
    """What gomin-client prints to a terminal as its standard error, without control sequences."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [BIN / "gomin-client", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=end,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(end)
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.close()
    shown = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the process has ended
            break
        if not data:
            break
        shown += data
    os.close(terminal)
    assert process.wait(timeout=300) == 0, shown
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one recording."""
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/a.wav", noise(0, samples=SECONDS * RATE), RATE)
    return tmp_path


def test_a_single_file_shows_its_seconds(tiny_repository: Path, folder: Path) -> None:
    """A batch of one file shows the same as the file."""
    url = f"local:{tiny_repository}"
    for given, output in ((folder / "in/a.wav", folder / "out.wav"), (folder / "in", folder / "out")):
        shown = shown_in_terminal("reconstruct", given, "-o", output, "--url", url)

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
