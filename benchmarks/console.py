"""What the programs have in common on the command line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable


def run(main: Callable[[], None]) -> None:
    """Run a program that writes each part of its results when the part is complete."""
    try:
        main()
    except KeyboardInterrupt:
        say("interrupted; the completed parts have been written")
        sys.exit(128 + signal.SIGINT)


def say(line: str) -> None:
    """Print progress."""
    print(line, file=sys.stderr, flush=True)
