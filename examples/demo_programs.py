"""Programs that `make demo` runs: shown as a person would type them, and ended with it, also by a signal."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

BIN = Path(sys.executable).parent
END_TIMEOUT_S = 60
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class EndedError(Exception):
    """A signal ended the demo."""

    def __init__(self, number: int) -> None:
        """Args: number: of the signal."""
        self.number = number


class InterruptedByUserError(EndedError):
    """Ctrl-C ended it."""


def step(title: str) -> None:
    """Announce a step."""
    print(f"\n== {title}", flush=True)


def show(command: Sequence[str], redirection: str = "") -> None:
    """Print a command as a person would type it."""
    print(f"$ {shlex.join(command)} {redirection}".rstrip(), flush=True)


def executable(command: Sequence[str]) -> list[str]:
    """A command with the path of its program, which is next to Python."""
    return [str(BIN / command[0]), *command[1:]]


def run(*command: str) -> None:
    """Show a command and run it; a failure ends the demo."""
    show(command)
    process = subprocess.Popen(executable(command))
    try:
        status = process.wait()
    finally:
        end(process)
    if status:
        raise subprocess.CalledProcessError(status, command)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that may be running, and wait for it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def print_while_running(process: subprocess.Popen[bytes], log: Path) -> None:
    """Print what a process writes into its log until it has ended; a failure ends the demo."""
    with log.open("rb") as written:
        while True:
            status = process.poll()
            sys.stdout.buffer.write(written.read())
            sys.stdout.flush()
            if status is not None:
                break
            time.sleep(0.1)
    if status:
        raise subprocess.CalledProcessError(status, process.args)


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def free_ports(usual_ports: Mapping[str, int]) -> dict[str, int]:
    """The usual ports, or the next ones that are free, by the same names, in the same order."""
    found: dict[str, int] = {}
    for name, usual in usual_ports.items():
        port = usual
        while port in found.values() or (port != usual and port in usual_ports.values()) or not is_free(port):
            port += 1
        if port != usual:
            print(f"port {usual} ({name}) is in use; taking {port}", flush=True)
        found[name] = port
    return found


def is_free(port: int) -> bool:
    """Whether nothing listens on a port of this machine."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def raise_signals() -> None:
    """Turn the signals that end a program into exceptions."""
    for number in SIGNALS:
        signal.signal(number, _ended)


def ignore_signals() -> None:
    """From here on, the rest of the work is done in spite of them."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _ended(number: int, _frame: FrameType | None) -> None:
    raise InterruptedByUserError(number) if number == signal.SIGINT else EndedError(number)


@contextmanager
def foreground() -> Iterator[None]:
    """Receive Ctrl-C alone: make, which waits for this program, would otherwise end with an error at once."""
    if not sys.stdin.isatty() or os.getpgrp() == os.getpid():
        yield
        return
    terminal, before = sys.stdin.fileno(), os.getpgrp()
    for number in (signal.SIGTTOU, signal.SIGTSTP):  # a stopped program would leave make waiting for ever
        signal.signal(number, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(terminal, os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(terminal, before)
