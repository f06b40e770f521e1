"""The frame of a command line program: the one place where errors and signals become messages and exit codes."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from gomin_client.errors import GominError, Interrupted


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gomin-triton {version('gomin-triton')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
]


def run(app: Callable[[], object], program: str, when_interrupted: str) -> None:
    """Run a command line program and exit with its status.

    Args:
        app: the program; it raises `GominError` for what its user can mend.
        program: its name, in front of every message.
        when_interrupted: what to tell a user who pressed Ctrl-C about the work so far.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        app()
    except GominError as error:
        typer.echo(f"{program}: {error}", err=True)
        sys.exit(error.exit_code)
    except Interrupted as interrupted:
        typer.echo(f"{program}: interrupted; {when_interrupted}", err=True)
        sys.exit(128 + interrupted.number)


def _interrupt(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # asked twice, end at once
    raise Interrupted(number)
