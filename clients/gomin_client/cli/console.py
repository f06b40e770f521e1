"""What a command line program says, and how it ends: errors and signals become messages and exit codes.

The library's messages name arguments of Python, in backticks; here they become the options that set them. Names of
files, messages of servers and values of configs may contain anything: control characters, with which a text could
change what the terminal shows, are escaped.
"""

from __future__ import annotations

import gc
import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TextIO

import typer

from gomin_client.errors import FileError, GominError, Interrupted
from gomin_client.interrupts import interrupts_raised

# arguments of Python in messages of the library → options
_OPTIONS = (
    (r'`to_gomin\(mel, "([\w-]+)"\)`', r"--mel-convention \1"),
    (r"`convention=…`", "--mel-convention"),
    (r"`force=True`", "--force"),
    (r"`mel\.T`", "--transpose"),
    (r"`Vocoder\.analyze`", "`gomin-client analyze`"),
    (r"`Connection\(timeout_s=…\)`", "--timeout"),
    (r"`Connection\(headers=…\)`", "--header"),
    (r"`Connection\(ca=…, certificate=…, key=…\)`", "--ssl-ca, --ssl-cert and --ssl-key"),
    (r"`Connection\(tls=True\)`", "--ssl"),
    (r"`certificate`", "--ssl-cert"),
    (r"`key`", "--ssl-key"),
    (r'`Vocoder\("local:model_repository"\)`', "`--url local:model_repository`"),
)

# C0 and C1 controls, and what turns the direction of text round or breaks lines
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gomin-triton {version('gomin-triton')}")
        raise typer.Exit


_is_program = False  # whether this process runs a command line program and nothing else

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
    global _is_program
    _is_program = True
    _fill_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
    with exit_status(program, when_interrupted), interrupts_raised():
        try:
            app()
        finally:
            if sys.stdout is not None:  # closed by the caller
                sys.stdout.flush()


def _fill_standard_descriptors() -> None:
    """Give standard streams that the caller closed a descriptor each: else files that are opened later would get them.

    What libraries print to standard error would then be written into an output. Messages are lost, as they were; reads
    of standard input and writes to standard output fail, as if they were still closed.
    """
    for descriptor, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def keep_what_is_loaded() -> None:
    """Exclude what is loaded by now from garbage collection, if this process runs a program and nothing else.

    Modules stay until the end. Python would search them for cycles then, which takes a fifth of the CPU time of a
    short command. What is made later, such as resamplers, is collected as always.
    """
    if _is_program:
        gc.freeze()


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
            _drop_output(sys.stdout)
        sys.exit(1)
    except Interrupted as interrupted:
        try:
            typer.echo(f"{program}: interrupted; {interrupted.so_far or when_interrupted()}", err=True)
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError:  # the terminal was closed
            for stream in filter(None, (sys.stdout, sys.stderr)):
                _drop_output(stream)
        sys.exit(128 + interrupted.number)
    finally:
        logging.getLogger("gomin_client").removeHandler(handler)


def _drop_output(stream: TextIO) -> None:
    """Let the rest of its buffer, which cannot be written, disappear: Python would end with another status."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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


def in_options(message: str) -> str:
    """A message of the library, for somebody at the command line."""
    for argument, option in _OPTIONS:
        message = re.sub(argument, option, message)
    return message


def visible(text: str) -> str:
    r"""The text with its control characters escaped, as \x1b."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def echo(line: str, *, err: bool = False) -> None:
    """Print one line of a message."""
    typer.echo(visible(in_options(line)), err=err)


def to_json(facts: Any) -> str:
    """JSON that can be shown on a terminal; an array of numbers takes one line.

    Raises:
        FileError: standard output, which it is for, is closed.
    """
    if sys.stdout is None:
        raise FileError("standard output is closed")
    text = json.dumps(_in_options(facts), indent=2, ensure_ascii=False)
    text = re.sub(r"\[\n[\d\s.,eE+-]*\]", lambda found: "[" + " ".join(found[0][1:-1].split()) + "]", text)
    return re.sub(r"[^\n\x20-\x7e\xa0-\U0010ffff]|[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]", _json_escape, text)


def _in_options(facts: Any) -> Any:
    if isinstance(facts, dict):
        return {name: _in_options(value) for name, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_in_options(value) for value in facts]
    return in_options(facts) if isinstance(facts, str) else facts


def _json_escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
