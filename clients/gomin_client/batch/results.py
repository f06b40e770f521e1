"""Results files: what became of every file of a batch, as JSON Lines, appended file by file.

The first line of a run describes the run, and every other line one file. A run that is killed leaves the lines of the
files that it finished; a later run with the same results file appends its own. `tools.results` merges them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from gomin_client.batch.run import Outcome
from gomin_client.batch.shards import ShardPlan
from gomin_client.errors import FileError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

RUN, FILE = "run", "file"  # types of lines


class ResultsFile:
    """A results file that one run appends to; a context manager around the run."""

    def __init__(self, path: Path, plan: ShardPlan, facts: dict[str, Any]) -> None:
        """Nothing is written yet.

        Args:
            path: the file; its folder is created if it is missing.
            plan: what the run is to do.
            facts: more entries for the line that describes the run.
        """
        self._path = path
        self._plan = plan
        self._facts = facts
        self._names = {named.job: named.name for named in plan.jobs}
        self._file: IO[bytes] | None = None
        self._started = 0.0

    def __enter__(self) -> Self:
        """Open the file, and describe the run.

        Raises:
            FileError: it cannot be written, or another run writes it.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab+")
            self._lock(self._file)
            if self._file.seek(0, os.SEEK_END):
                self._file.seek(-1, os.SEEK_END)
                if self._file.read(1) != b"\n":  # the last line of a run that was killed
                    self._file.write(b"\n")
        except OSError as error:
            raise FileError(f"{self._path}: cannot be written: {error.strerror or error}") from error
        self._started = time.monotonic()
        plan = self._plan
        self._write(
            {
                "type": RUN,
                "started": round(time.time(), 3),
                "shard": str(plan.shard),
                "total": plan.total,
                "digest": plan.digest,
                **self._facts,
                "names": [named.name for named in plan.jobs],
            }
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, outcome: Outcome) -> None:
        """Append the outcome of a file.

        Raises:
            FileError: there is no space left, say.
        """
        at = round(time.monotonic() - self._started, 3)
        self._write({"type": FILE, "name": self._names[outcome.job], **outcome.to_dict(), "at_seconds": at})

    def _lock(self, file: IO[bytes]) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileError(
                f"{self._path}: another run is writing this results file; give every shard a file of its own"
            ) from None
        except OSError:  # a file system without locks
            pass

    def _write(self, line: dict[str, Any]) -> None:
        assert self._file is not None  # it is open within the context
        try:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise FileError(f"{self._path}: cannot be written: {error.strerror or error}") from error


def find_results(paths: Sequence[Path]) -> list[Path]:
    """The results files that arguments stand for: files, and the .jsonl files of folders.

    Raises:
        FileError: a file that is not there, or a folder without any.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not inside:
            raise FileError(f"{path}: has no results files, .jsonl")
        found += inside
    return list(dict.fromkeys(found))
