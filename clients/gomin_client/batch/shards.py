"""One part of a batch for each of several processes or machines, which need not know of each other.

Every process plans the whole batch and takes its own part. The parts depend on the names and sizes of the inputs
alone: names are compared as bytes, relative to the folder that contains all inputs, so neither the order of a listing,
the locale nor the place where a file system is mounted changes them.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gomin_client.batch.inputs import STREAM
from gomin_client.batch.outputs import FileJob
from gomin_client.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a batch; `index` counts from 1."""

    index: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "I/N".

        Raises:
            UsageError: it is something else.
        """
        if not re.fullmatch("[0-9]{1,9}/[0-9]{1,9}", text):
            raise UsageError(f"--shard {text}: expected I/N, such as 1/8 for the first of eight parts")
        index, count = map(int, text.split("/"))
        if index == 0:
            raise UsageError(f"--shard {text}: parts are counted from 1; add 1 to an index that begins with 0")
        if not index <= count:
            raise UsageError(f"--shard {text}: there are {count} parts")
        return cls(index, count)


@dataclass(frozen=True)
class NamedJob:
    """A job, with what does not depend on the machine.

    Attributes:
        name: its input, relative to the folder that contains all inputs of the whole batch.
        job: the job.
    """

    name: str
    job: FileJob


@dataclass(frozen=True)
class ShardPlan:
    """The part of a batch that one process does.

    Attributes:
        shard: which part.
        jobs: its jobs, in the order of the whole batch.
        total: number of jobs of the whole batch.
        digest: SHA-256 of names and sizes of all inputs: parts of one batch have the same.
    """

    shard: Shard
    jobs: list[NamedJob]
    total: int
    digest: str


def plan_shard(jobs: Sequence[FileJob], shard: Shard) -> ShardPlan:
    """Choose the jobs of one part of a batch.

    The largest file goes to the part with the fewest bytes so far, then the next one, and so on (Graham 1969: no part
    has more than 4/3 of the bytes of the best division).

    Args:
        jobs: the whole batch.
        shard: which part.

    Raises:
        UsageError: standard input, which only one process has.
    """
    if shard.count > 1 and any(job.source == STREAM for job in jobs):
        raise UsageError(f"--shard {shard}: standard input has no parts")
    names = relative_names([job.source for job in jobs])
    sizes = [_size(job.source) for job in jobs]
    order = sorted(range(len(jobs)), key=lambda i: (-sizes[i], os.fsencode(names[i])))
    loads = [(0, index) for index in range(1, shard.count + 1)]
    own = set()
    for i in order:
        load, index = loads[0]
        heapq.heapreplace(loads, (load + max(1, sizes[i]), index))  # a missing file counts: somebody has to report it
        if index == shard.index:
            own.add(i)
    digest = hashlib.sha256()
    for i in order:
        digest.update(b"%d %s\0" % (sizes[i], os.fsencode(names[i])))
    chosen = [NamedJob(names[i], job) for i, job in enumerate(jobs) if i in own]
    return ShardPlan(shard, chosen, len(jobs), digest.hexdigest())


def relative_names(paths: Iterable[Path]) -> list[str]:
    """Paths relative to the folder that contains all of them."""
    whole = [os.path.abspath(path) if path != STREAM else str(path) for path in paths]
    folder = "" if str(STREAM) in whole else os.path.commonpath([os.path.dirname(path) for path in whole])
    return [os.path.relpath(path, folder) if folder else path for path in whole]


def _size(path: Path) -> int:
    """Number of bytes; 0 for a file that is missing, which the job reports."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
