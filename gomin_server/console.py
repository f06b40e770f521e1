"""What the server writes, without some lines.

On a machine without a GPU, tritonserver complains twice about CUDA, and no option of its own prevents that.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

NO_GPU_LINES = (
    "CudaDriverHelper has not been initialized",
    "failed to allocate pinned system memory: no pinned memory pool",
)
_LAST_LINES_S = 2.0


@dataclass(frozen=True)
class Stderr:
    """Where a server writes its messages.

    Attributes:
        pipe: For `subprocess`; None: the stderr of this process.
        process: Reads the pipe; None: there is none.
    """

    pipe: IO[bytes] | None = None
    process: subprocess.Popen[bytes] | None = None

    def wait(self) -> None:
        """Wait until all that an ended server wrote is shown."""
        if self.process is None:
            return
        try:
            self.process.wait(_LAST_LINES_S)
        except subprocess.TimeoutExpired:  # a process that the server left holds the pipe
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def without_lines(texts: Sequence[str]) -> Iterator[Stderr]:
    """A stderr for a server that is started within the block; the console does not show lines with these texts.

    The lines are dropped by a separate process. It outlives this one, so that a server whose launcher is stopped or
    killed can still write.
    """
    command = ["grep", "--line-buffered", "--text", "--invert-match", "--fixed-strings"]
    command += [f"--regexp={text}" for text in texts]
    try:
        # its own session: Ctrl-C at the terminal does not end it before the server has written its last lines
        process = (
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=2,
                env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,
            )
            if texts
            else None
        )
    except FileNotFoundError:  # no grep: all lines are shown
        process = None
    if process is None:
        yield Stderr()
        return
    assert process.stdin is not None
    with process.stdin:  # the server has it then; when it ends, the reader finds the end of the pipe
        yield Stderr(process.stdin, process)
