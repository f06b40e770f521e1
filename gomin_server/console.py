"""What the server writes: lines that are not shown, and lines that are kept for `starting`.

On a machine without a GPU, tritonserver complains about CUDA, and no option of its own prevents that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from gomin_server import line_filter
from gomin_server.processes import states

NO_GPU_LINES = (
    "CudaDriverHelper has not been initialized",
    "failed to allocate pinned system memory: no pinned memory pool",
    "CUDA driver version is insufficient for CUDA runtime version",  # of each ensemble
)
_LAST_LINES_S = 2.0
_LATE_LINES_S = 30.0  # on a busy machine, the program that reads them may not even have started


@dataclass(frozen=True)
class Stderr:
    """Where a server writes its messages.

    Attributes:
        pipe: For `subprocess`; None: the stderr of this process.
        process: Reads the pipe; None: there is none.
        memory: A file in memory with the lines that are kept; None: there is none.
    """

    pipe: IO[bytes] | None = None
    process: subprocess.Popen[bytes] | None = None
    memory: int | None = None

    def kept_lines(self) -> str:
        """The lines that are kept, as far as the server has written them."""
        if self.memory is None:
            return ""
        return os.pread(self.memory, os.fstat(self.memory).st_size, 0).decode(errors="replace")

    def wait(self) -> None:
        """Wait until all that an ended server wrote is shown."""
        if self.process is None:
            return
        give_up_at = time.monotonic() + _LATE_LINES_S
        while self.process.returncode is None:
            try:
                self.process.wait(_LAST_LINES_S)
            except subprocess.TimeoutExpired:
                # if it is not late, a process that the server left holds the pipe
                if not _is_late(self.process.pid) or time.monotonic() > give_up_at:
                    self.process.kill()
                    self.process.wait()
        if self.memory is not None:
            os.close(self.memory)


def _is_late(reader: int) -> bool:
    """Whether a process that reads a pipe has something to read, or to do with what it has read."""
    if next((state for _, _, state in states([reader])), "") != "S":  # it runs, or waits for a CPU or the disk
        return True
    try:
        pipe = os.open(f"/proc/{reader}/fd/0", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return bool(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])
    finally:
        os.close(pipe)


@contextlib.contextmanager
def filtered(hidden: Sequence[str], kept: Sequence[str] = ()) -> Iterator[Stderr]:
    """A stderr for a server that is started within the block; `Stderr.wait` is called when it has ended.

    Args:
        hidden: Texts of lines that the console does not show.
        kept: Texts of lines that `Stderr.kept_lines` gives.
    """
    if not hidden and not kept:
        yield Stderr()
        return
    memory = os.memfd_create("gomin-server")
    process = subprocess.Popen(
        [
            *(sys.executable, "-I", "-S", line_filter.__file__, str(memory)),
            *(line_filter.HIDE + text for text in hidden),
            *(line_filter.KEEP + text for text in kept),
        ],
        stdin=subprocess.PIPE,
        # its own session: Ctrl-C at the terminal does not end it before the server has written its last lines
        start_new_session=True,
        pass_fds=[memory],
    )
    assert process.stdin is not None
    with process.stdin:  # the server has it then; when it ends, the reader finds the end of the pipe
        yield Stderr(process.stdin, process, memory)
