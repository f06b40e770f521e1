"""gomin-client with a gate: a batch is in its middle when a test causes a fault, however late that is."""

from __future__ import annotations

import sys
from pathlib import Path

# Its first argument is the file of the gate.
PROGRAM = """
import itertools, sys, time
from pathlib import Path
from gomin_client.batch import run
from gomin_client.cli.main import main

gate, begun, attempt = Path(sys.argv.pop(1)), itertools.count(), run._attempt

def attempt_when_allowed(outcome, batch):
    number = next(begun)
    while number >= int(gate.read_text()):
        time.sleep(0.01)
    attempt(outcome, batch)

run._attempt = attempt_when_allowed
main()
"""
ALL = 10**9


class Gate:
    """How many files of a batch may be begun.

    Attributes:
        client: the program and its first arguments, in place of gomin-client.
    """

    def __init__(self, path: Path, files: int) -> None:
        self._path = path
        self.client = [sys.executable, "-c", PROGRAM, str(path)]
        self.allow(files)

    def allow(self, files: int = ALL) -> None:
        """Let so many files be begun, of the whole batch."""
        part = self._path.with_name(f"{self._path.name}.part")
        part.write_text(str(files))
        part.replace(self._path)
