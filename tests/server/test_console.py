"""Lines that the console does not show."""

import subprocess
import sys
from pathlib import Path

import pytest

from gomin_server import console, line_filter
from tests.support import ROOT


def written(program: str, texts: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """What the console shows of a shell program's stderr."""
    with console.filtered(texts) as stderr:
        process = subprocess.Popen(["sh", "-c", program], stderr=stderr.pipe)
    process.wait()
    stderr.wait()
    return capfd.readouterr().err


def test_lines_with_a_text_are_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    program = r"printf 'first\nno [GPU] here\nbytes \377\nlast' >&2"

    assert written(program, ["[GPU]", "absent"], capfd) == "first\nbytes \udcff\nlast".replace("\udcff", "�")


def test_without_texts_nothing_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    assert written("echo one >&2", [], capfd) == "one\n"


def test_lines_that_are_kept_are_shown_too(capfd: pytest.CaptureFixture[str]) -> None:
    with console.filtered(["/hidden."], ["loading: ", "[done]"]) as stderr:
        program = r"printf 'loading: a\nother\n/hidden. loading: b\n/hiddenx\n\377 [done]\nd\n' >&2"
        process = subprocess.Popen(["sh", "-c", program], stderr=stderr.pipe)
    process.wait()
    assert stderr.process is not None
    stderr.process.wait(60)

    assert stderr.kept_lines() == "loading: a\n/hidden. loading: b\n\ufffd [done]\n"
    assert capfd.readouterr().err == "loading: a\nother\n/hiddenx\n\ufffd [done]\nd\n"
    stderr.wait()


def test_a_server_goes_on_when_its_console_is_closed() -> None:
    """The process that reads its lines goes on as well, and keeps them."""
    program = "from gomin_server import console; import os, subprocess\n"
    program += "with console.filtered([], ['kept']) as stderr:\n"
    program += "    server = subprocess.Popen(['sh', '-c', 'read go; echo kept 1 >&2; echo kept 2 >&2; exit 7'],"
    program += " stdin=0, stderr=stderr.pipe)\n"
    program += "status = server.wait(); stderr.process.wait(); print(status, stderr.kept_lines().split())"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stderr is not None
    assert process.stdin is not None
    process.stderr.close()
    process.stdin.write("go\n")
    process.stdin.close()
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.read() == "7 ['kept', '1', 'kept', '2']\n"
    assert process.wait(60) == 0


def test_lines_are_shown_although_the_process_that_reads_them_starts_late(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    late = tmp_path / "late.py"
    late.write_text(f"import runpy, time; time.sleep(1); runpy.run_path({line_filter.__file__!r}, run_name='__main__')")
    monkeypatch.setattr(console, "_LAST_LINES_S", 0.05)
    monkeypatch.setattr(line_filter, "__file__", str(late))

    assert written("echo one >&2; echo two >&2", ["one"], capfd) == "two\n"


def test_a_process_that_keeps_the_pipe_is_not_waited_for(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_LAST_LINES_S", 0.2)
    with console.filtered(["text"]) as stderr:
        process = subprocess.Popen(["sleep", "600"], stderr=stderr.pipe)
    try:
        stderr.wait()
    finally:
        process.kill()
        process.wait()
    assert stderr.process is not None
    assert stderr.process.returncode is not None
