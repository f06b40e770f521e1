"""Removes what a killed gomin-server left behind: processes, shared memory and its private directory.

Each running gomin-server holds a lock on a file in its private directory. The kernel releases it when the process ends,
however it ends, so a directory whose lock is free has no owner.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

LOCK = "lock"
SHARED_MEMORY = Path("/dev/shm")
PROGRAMS = ("tritonserver", "triton_python_b")  # as the kernel cuts them
END_TIMEOUT_S = 5.0
_NAME = re.compile(r"gomin-server-[0-9a-f]{12}")


def directory_name(token: str) -> str:
    """Name of the private directory of the server with a token of 12 hexadecimal digits."""
    return f"gomin-server-{token}"


def shared_memory_prefix(token: str) -> str:
    """Beginning of the names of its shared memory."""
    return f"gomin_server_{token}_"


def remove_shared_memory(token: str) -> None:
    """Remove the shared memory of a server whose processes have ended."""
    for region in SHARED_MEMORY.glob(f"{shared_memory_prefix(token)}*"):
        region.unlink(missing_ok=True)


def hold_lock(directory: Path) -> int:
    """Make and lock the file that shows that a private directory has an owner.

    Returns:
        The descriptor that holds the lock until it is closed. The server does not inherit it, since it may outlive
        this process.

    Raises:
        OSError: The file cannot be made.
    """
    unlocked = directory / f"{LOCK}.new"
    descriptor = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        unlocked.rename(directory / LOCK)  # under this name it is locked from the beginning
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def clean_up(parents: Iterable[str], say: Callable[[str], None]) -> None:
    """Remove what gomin-servers that were killed left behind; those of other users are left alone.

    Args:
        parents: The directories for temporary files.
        say: Prints a line for the user.
    """
    for parent in parents:
        try:
            directories = [path for path in Path(parent).iterdir() if _NAME.fullmatch(path.name)]
        except OSError:  # reported later, if it matters
            continue
        for directory in directories:
            with contextlib.suppress(OSError):  # it has just been removed, or it is not ours
                if directory.lstat().st_uid == os.geteuid() and _remove(directory):
                    say(f"removed what a killed gomin-server left behind: {directory}, its processes and shared memory")


def _remove(directory: Path) -> bool:
    """Remove a private directory, its processes and its shared memory, unless it has an owner.

    Raises:
        OSError: There is no lock: another process is making or removing the directory.
    """
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        token = directory.name.rpartition("-")[2]
        _end_processes(token)
        remove_shared_memory(token)
        shutil.rmtree(directory)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _end_processes(token: str) -> None:
    """End the processes of a server, and wait until they have ended."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while (processes := list(_processes(token))) and time.monotonic() < deadline:
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


def _processes(token: str) -> Iterator[int]:
    """tritonserver and its helper processes, which have the token in their command lines."""
    marks = (os.fsencode(directory_name(token)), os.fsencode(shared_memory_prefix(token)))
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                name = (entry / "stat").read_text().partition("(")[2].rpartition(")")[0]
                command_line = (entry / "cmdline").read_bytes() if name in PROGRAMS else b""
            except OSError:  # the process has ended
                continue
            if any(mark in command_line for mark in marks):
                yield int(entry.name)
