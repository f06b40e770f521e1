"""What a server and its clients hold on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import median

from tests.server.processes import descendants, leftovers
from tests.support import RunningServer

MIB = 2**20
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    """Memory in MiB, and counts. "server": the launcher, tritonserver and its helper processes together."""

    client_memory: float
    client_threads: float
    client_descriptors: float
    server_memory: float
    server_threads: float
    server_descriptors: float
    shared_memory: float


NAMES = tuple(field.name for field in fields(Sample))
# Growth that counts as flat: a share of the value, and an amount in its unit. Allocators keep memory, more
# if requests happened to come at the same time; servers and gRPC start threads and open connections as they need them.
LIMITS = dict(zip(NAMES, [(0.10, 20), (0, 4), (0, 6), (0.10, 100), (0, 8), (0, 12), (0, 4)], strict=True))


def sample(server: RunningServer) -> Sample:
    """The state of this process and of a server, between requests."""
    processes = [server.process.pid, *descendants(server.process.pid)]
    files = [path for path in leftovers(server) if path.parent == Path("/dev/shm")]
    # blocks, not the size: the regions are sparse
    shared = sum(path.stat().st_blocks * 512 for path in files) / MIB
    return Sample(*_held([os.getpid()]), *_held(processes), shared)


def median_of(samples: Sequence[Sample]) -> Sample:
    return Sample(*(median(values) for values in zip(*map(astuple, samples), strict=True)))


def growth(first: Sample, last: Sample) -> list[str]:
    """One line for each resource that grew by more than its limit."""
    found = []
    for name, (share, amount) in LIMITS.items():
        before, after = getattr(first, name), getattr(last, name)
        if after > before * (1 + share) + amount:
            found.append(f"{name.replace('_', ' ')} grew from {before:.0f} to {after:.0f}")
    return found


def _held(processes: Iterable[int]) -> tuple[float, int, int]:
    """Memory in MiB, threads and descriptors of processes together."""
    memory, threads, descriptors = 0.0, 0, 0
    for process in processes:
        home = Path(f"/proc/{process}")
        memory += int((home / "statm").read_text().split()[1]) * PAGE / MIB
        threads += len(os.listdir(home / "task"))
        descriptors += len(os.listdir(home / "fd"))
    return memory, threads, descriptors
