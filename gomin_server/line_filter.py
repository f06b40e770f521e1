"""A program between a server and the console: it leaves lines out and keeps copies of others.

It is a process of its own because it must outlive `gomin-server`: a server whose launcher was killed can still write.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence

HIDE, KEEP = "hide=", "keep="
_BLOCK = 65536


def main(arguments: Sequence[str]) -> None:
    """Copy lines from standard input to standard error.

    Args:
        arguments: The file descriptor for lines that are kept, and the texts of lines that are not shown, after `HIDE`,
            and of lines that are kept, after `KEEP`.
    """
    memory = int(arguments[0])
    hidden, kept = (
        [os.fsencode(argument.removeprefix(kind)) for argument in arguments[1:] if argument.startswith(kind)]
        for kind in (HIDE, KEEP)
    )
    for line in _lines():
        if any(text in line for text in kept):
            _write(memory, line)
        if not any(text in line for text in hidden):
            _write(2, line)


def _lines() -> Iterable[bytes]:
    """The lines of standard input, each as soon as it is complete."""
    rest = b""
    while block := os.read(0, _BLOCK):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


def _write(descriptor: int, data: bytes) -> None:
    """Write all of it, if somebody reads it: the server must not end because its console was closed."""
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    main(sys.argv[1:])
