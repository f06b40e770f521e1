"""The processes of a running server, as /proc shows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

HELPER = "triton_python_backend_stub"[:15]  # the kernel cuts names
RUNNING_SHARE = 0.02
READY_SHARE = 0.5
_PROC = Path("/proc")
_ESTABLISHED = "01"  # TCP_ESTABLISHED of the kernel


@dataclass(frozen=True)
class Served:
    """A version of a model, served by helper processes."""

    model: str
    version: str


def helpers(server: int) -> Iterator[tuple[int, str, str]]:
    """Process id, name and state of each helper process."""
    return (entry for entry in states(_children(server)) if entry[1] == HELPER)


def states(processes: Iterable[int]) -> Iterator[tuple[int, str, str]]:
    """Process id, name and state of those processes that exist."""
    for process in processes:
        try:
            name, _, rest = (_PROC / str(process) / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:  # the process has ended
            continue
        yield process, name, rest.split()[0]


def served(helper: int) -> Served | None:
    """What a helper process serves, from the path in its command line; None: it cannot be read."""
    try:
        arguments = (_PROC / str(helper) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    parts = Path(arguments[1].decode(errors="replace")).parts if len(arguments) > 1 else ()
    return Served(parts[-3], parts[-2]) if len(parts) >= 3 else None  # …/MODEL/VERSION/FILE


class Used(NamedTuple):
    """What threads took from the CPUs, in seconds.

    Attributes:
        ran_s: Their CPU time.
        waited_s: The time for which they were ready to run and other threads had the CPU.
    """

    ran_s: float
    waited_s: float


_NOTHING = Used(0.0, 0.0)


@dataclass(kw_only=True)
class IdleTime:
    """For how long processes have done next to nothing.

    Idle means that they had a CPU for less than 2 % of the time, and a CPU or a place in the queue for one for less
    than half of the time.

    Attributes:
        used: What they had used when they were last seen to work.
        idle_s: The time for which they have been idle since, while they were observed.
    """

    used: Used = _NOTHING
    idle_s: float = 0.0

    def restart(self, used: Used) -> None:
        """Begin to count idle time anew."""
        self.used, self.idle_s = used, 0.0

    def was_idle(self, used: Used) -> bool:
        """Whether the processes have done next to nothing since; `used`: by now."""
        ran, waited = used.ran_s - self.used.ran_s, used.waited_s - self.used.waited_s
        if ran < 0 or waited < 0:  # a thread has ended
            return False
        return ran <= RUNNING_SHARE * self.idle_s and ran + waited <= READY_SHARE * self.idle_s


def used(processes: Iterable[int]) -> Used:
    """What processes and their descendants have taken so far."""
    ran_ns = waited_ns = 0
    for process in [*processes]:
        for thread in _threads(process):
            try:
                ran, waited, _ = (thread / "schedstat").read_text().split()
            except (OSError, ValueError):  # the thread has ended
                continue
            ran_ns += int(ran)
            waited_ns += int(waited)
        below = used(_children(process))
        ran_ns += round(below.ran_s * 1e9)
        waited_ns += round(below.waited_s * 1e9)
    return Used(ran_ns / 1e9, waited_ns / 1e9)


def counts_use() -> bool:
    """Whether this kernel counts what `used` returns."""
    return (_PROC / "self" / "schedstat").exists()


def waits_for_disk(process: int) -> bool:
    """Whether a thread of a process waits for input or output that cannot be interrupted, such as swapped memory."""
    for thread in _threads(process):
        try:
            state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            continue
        if state == "D":
            return True
    return False


def has_clients(server: int, ports: Iterable[int]) -> bool:
    """Whether somebody is connected to one of a server's TCP ports."""
    wanted = {f"{port:04X}" for port in ports}
    for table in ("tcp", "tcp6"):
        try:
            lines = (_PROC / str(server) / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state = line.split()[:4]
            if state == _ESTABLISHED and local.rpartition(":")[2] in wanted:
                return True
    return False


def _threads(process: int) -> list[Path]:
    try:
        return list((_PROC / str(process) / "task").iterdir())
    except OSError:
        return []


def _children(process: int) -> list[int]:
    found: list[int] = []
    for thread in _threads(process):
        try:
            found += map(int, (thread / "children").read_text().split())
        except OSError:  # the thread has ended
            continue
    return found
