"""The frame of a command line program: the one place where errors and signals become messages and exit codes."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from gomin_client.cli.wording import echo
from gomin_client.errors import GominError, Interrupted


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gomin-triton {version('gomin-triton')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
]


def run(app: Callable[[], object], program: str, when_interrupted: Callable[[], str]) -> None:
    """Run a command line program and exit with its status.

    Args:
        app: the program; it raises `GominError` for what its user can correct.
        program: its name, in front of every message.
        when_interrupted: what to say of the work so far to a user who pressed Ctrl-C.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
    with exit_status(program, when_interrupted):
        try:
            app()
        finally:
            if sys.stdout is not None:  # closed by the caller
                sys.stdout.flush()


@contextmanager
def exit_status(program: str, when_interrupted: Callable[[], str]) -> Iterator[None]:
    """Turn errors and interrupts into a line on standard error and a `SystemExit`; print what libraries log.

    Args:
        program: see `run`.
        when_interrupted: see `run`.
    """
    handler = _StderrHandler(program)
    logging.getLogger("gomin_client").addHandler(handler)
    try:
        yield
    except GominError as error:
        echo(f"{program}: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        echo(f"{program}: {_described(error)}", err=True)
        if error.filename is None and sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest of its buffer cannot be written
        sys.exit(1)
    except Interrupted as interrupted:
        typer.echo(f"{program}: interrupted; {interrupted.so_far or when_interrupted()}", err=True)
        sys.exit(128 + interrupted.number)
    finally:
        logging.getLogger("gomin_client").removeHandler(handler)


def _described(error: OSError) -> str:
    """An error of the operating system in words. Libraries raise errors of ours for the files that they are given."""
    reason = error.strerror or error
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {reason}"
    try:
        os.getcwd()
    except OSError as gone:
        return f"the current directory cannot be used: {gone.strerror}"
    return f"cannot write its output: {reason}"


class _StderrHandler(logging.Handler):
    """Prints the log messages of our libraries to standard error."""

    def __init__(self, program: str) -> None:
        super().__init__(logging.WARNING)
        self._program = program

    def emit(self, record: logging.LogRecord) -> None:
        echo(f"{self._program}: {record.levelname.lower()}: {record.getMessage()}", err=True)


def _interrupt(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second signal ends the program at once
    raise Interrupted(number)
