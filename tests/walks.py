"""Which functions of the client run: around a piece of code, or during a whole command in a process of its own.

    python tests/walks.py reconstruct a.wav

prints them after the command's own output, one "FILE FUNCTION" a line.
"""

from __future__ import annotations

import inspect
import sys
import threading
from pathlib import Path
from types import FrameType

OURS = str(Path(__file__).parent.parent / "clients/gomin_client")


class Walk:
    """Functions of ours that are called in this thread, or in threads that begin meanwhile.

    Bodies of classes and modules, comprehensions and what is generated for dataclasses do not count.
    """

    def __init__(self, first: str = "", last: object = None) -> None:
        """Nothing has been called yet.

        Args:
            first: name of the function that the walk begins with; empty for the first one.
            last: the built-in function that it ends with; None for the end of the context.
        """
        self.functions: set[tuple[str, str]] = set()
        self._first, self._last = first, last
        self._on_the_way = not first

    @property
    def files(self) -> set[str]:
        return {file for file, _ in self.functions}

    def __enter__(self) -> Walk:
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _note(self, frame: FrameType, event: str, function: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(OURS):
            self._on_the_way |= code.co_qualname == self._first
            is_function = code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")
            if self._on_the_way and is_function:
                self.functions.add((Path(code.co_filename).relative_to(OURS).as_posix(), code.co_qualname))
        elif event == "c_call" and self._last is not None and function is self._last:
            self._on_the_way = False


def main() -> None:
    with Walk() as walked:
        try:
            from gomin_client.cli.main import main as command

            command()
        finally:
            sys.setprofile(None)
            print(*(" ".join(found) for found in sorted(walked.functions)), sep="\n")


if __name__ == "__main__":
    main()
