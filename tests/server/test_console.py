"""Lines that the console does not show."""

import subprocess

import pytest

from gomin_server import console


def written(program: str, texts: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """What the console shows of a shell program's stderr."""
    with console.without_lines(texts) as stderr:
        process = subprocess.Popen(["sh", "-c", program], stderr=stderr.pipe)
    process.wait()
    stderr.wait()
    return capfd.readouterr().err


def test_lines_with_a_text_are_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    program = r"printf 'first\nno [GPU] here\nbytes \377\nlast' >&2"

    assert written(program, ["[GPU]", "absent"], capfd) == "first\nbytes \udcff\nlast\n".replace("\udcff", "�")


def test_without_texts_nothing_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    assert written("echo one >&2", [], capfd) == "one\n"


def test_without_grep_nothing_is_left_out(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with console.without_lines(["text"]) as stderr:
        assert stderr == console.Stderr()


def test_a_process_that_keeps_the_pipe_is_not_waited_for(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_LAST_LINES_S", 0.2)
    with console.without_lines(["text"]) as stderr:
        process = subprocess.Popen(["sleep", "600"], stderr=stderr.pipe)
    try:
        stderr.wait()
    finally:
        process.kill()
        process.wait()
    assert stderr.process is not None
    assert stderr.process.returncode is not None
