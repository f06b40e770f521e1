"""Signals in programs of ours: real processes that receive them where libraries do what they want with exceptions."""

import os
import pty
import signal
import subprocess
import sys

import pytest

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
PROGRAM = """
import os, signal
from gomin_client.cli.console import run

def end(name):
    os.kill(os.getpid(), getattr(signal, name))

def app():
{body}

run(app, "toy", lambda: "nothing was done")
"""


def toy(*lines: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program that consists of these lines, from a shell that has run a line.

    Not by `preexec_fn`, with which this process would be copied, with gRPC's threads and what these hold.
    """
    program = PROGRAM.format(body="".join(f"    {line}\n" for line in lines))
    command = ["sh", "-c", f'{before}\nexec "$@"', "sh", sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("number", ALL)
@pytest.mark.parametrize(
    "library",
    [
        ("end({0!r})",),
        (
            "try: end({0!r})",
            "except BaseException as error: raise RuntimeError('Error calling __set_name__') from error",
        ),
        ("try: end({0!r})", "except BaseException: raise SystemExit(5)"),
        ("try: end({0!r})", "except BaseException: raise OSError('a message of its own')"),
        ("try: end({0!r})", "except BaseException: pass"),
        ("class Freed:", "    def __del__(self): end({0!r})", "Freed()"),  # Python cannot raise it
    ],
    ids=["raises", "converts", "exits", "reports", "drops", "is freed"],
)
def test_a_program_ends_as_interrupted_whatever_becomes_of_the_exception(
    number: signal.Signals, library: tuple[str, ...]
) -> None:
    result = toy(*(line.format(number.name) for line in library))

    assert (result.returncode, result.stderr) == (128 + number, "toy: interrupted; nothing was done\n")


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(second: signal.Signals) -> None:
    result = toy("try: end('SIGINT')", f"finally: end({second.name!r})")

    assert (result.returncode, result.stderr) == (-second, "")


@pytest.mark.parametrize("first", ALL)
def test_a_hangup_after_a_signal_does_not_disturb_the_end(first: signal.Signals) -> None:
    """The system and a shell may both send it."""
    result = toy(f"try: end({first.name!r})", "finally: end('SIGHUP')")

    assert (result.returncode, result.stderr) == (128 + first, "toy: interrupted; nothing was done\n")


def test_a_program_that_nohup_started_survives_a_hangup() -> None:
    result = toy("end('SIGHUP')", "print('done')", before="trap '' HUP")

    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


def test_an_exception_that_cannot_be_raised_is_shown_without_a_signal() -> None:
    result = toy("class Freed:", "    def __del__(self): raise ValueError('a defect')", "Freed()")

    assert result.returncode == 0
    assert "ValueError: a defect" in result.stderr


def test_a_terminal_that_is_closed() -> None:
    """Its system sends SIGHUP, and what the program writes afterwards cannot be written."""
    terminal, end = pty.openpty()
    own_terminal = "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    program = PROGRAM.format(
        body="    print('ready', flush=True)\n    print('half a line', end='')\n    signal.pause()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", own_terminal + program], stdin=end, stdout=end, stderr=end, start_new_session=True
    )
    os.close(end)
    try:
        shown = b""
        while b"ready" not in shown:
            shown += os.read(terminal, 1024)
        os.close(terminal)
        assert process.wait(timeout=300) == 128 + signal.SIGHUP
    finally:
        process.kill()
        process.wait()
