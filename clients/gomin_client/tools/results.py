"""Merges the results files of the shards of a batch: what was made, what failed, and what nobody did."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gomin_client.batch.results import FILE, RUN, find_results
from gomin_client.batch.run import DONE, FAILED, SKIPPED
from gomin_client.batch.shards import Shard
from gomin_client.errors import FileError, UsageError

_SHOWN = 20  # names in each list of the text
_NUMBER = (int, float)
_ENTRIES: dict[str, dict[str, type | tuple[type, ...]]] = {
    RUN: {"started": _NUMBER, "shard": str, "total": int, "digest": str, "names": list},
    FILE: {"name": str, "status": str, "audio_seconds": _NUMBER, "at_seconds": _NUMBER},
}


@dataclass
class Run:
    """One run of one shard.

    Attributes:
        facts: the line that describes it.
        files: the lines of its files, in the order in which they were finished.
    """

    facts: dict[str, Any]
    files: list[dict[str, Any]] = field(default_factory=list)

    @property
    def shard(self) -> Shard:
        """The part of the batch that it did."""
        return Shard.parse(self.facts["shard"])

    @property
    def seconds(self) -> float:
        """Time from its start to its last finished file, in seconds."""
        return max((line["at_seconds"] for line in self.files), default=0.0)


@dataclass(frozen=True)
class Merged:
    """The state of a batch, from all runs of all its shards.

    Attributes:
        total: number of files of the whole batch.
        shards: number of shards.
        missing_shards: those without any run.
        files: name → its last line; one that was made and later skipped counts as made.
        missing: names of files of known shards that have no line.
        duplicates: names of files that several shards have.
        seconds: shard → time of its runs, in seconds.
        truncated: results files whose last line is not complete, because the run was killed.
        made_by: models and chains that made files: entries `model`, `sampling` and `stop_after` of runs, without
            repetitions.
    """

    total: int
    shards: int
    missing_shards: list[int]
    files: dict[str, dict[str, Any]]
    missing: list[str]
    duplicates: list[str]
    seconds: dict[int, float]
    truncated: list[Path]
    made_by: list[dict[str, Any]]

    @property
    def counts(self) -> Counter[str]:
        """Number of files of each status."""
        return Counter(line["status"] for line in self.files.values())

    @property
    def failed(self) -> dict[str, str]:
        """Name → error of the files that failed."""
        return {name: line.get("error", "") for name, line in self.files.items() if line["status"] == FAILED}

    @property
    def audio_s(self) -> float:
        """Duration of the audio that was made, in seconds."""
        return float(sum(line["audio_seconds"] for line in self.files.values()))

    @property
    def is_complete(self) -> bool:
        """Whether every file was made, once."""
        return len(self.files) == self.total and not (self.failed or self.duplicates or self.missing_shards)

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON."""
        busy_s = sum(self.seconds.values())
        return {
            "complete": self.is_complete,
            "shards": self.shards,
            "missing_shards": self.missing_shards,
            "total": self.total,
            "done": self.counts[DONE],
            "skipped": self.counts[SKIPPED],
            "failed": self.failed,
            "missing": self.missing,
            "missing_count": self.total - len(self.files),
            "duplicates": self.duplicates,
            "audio_seconds": round(self.audio_s, 4),
            "shard_seconds": {str(index): round(seconds, 3) for index, seconds in sorted(self.seconds.items())},
            "real_time": round(self.audio_s / busy_s, 3) if busy_s else None,
            "made_by": self.made_by,
        }

    def to_text(self) -> str:
        """The state in lines."""
        counts = self.counts
        known = self.shards - len(self.missing_shards)
        lines = [
            f"shards: {known} of {self.shards}",
            f"files: {len(self.files)} of {self.total}: {counts[DONE]} done, {counts[SKIPPED]} skipped, "
            f"{counts[FAILED]} failed",
        ]
        busy_s = sum(self.seconds.values())
        if self.audio_s and busy_s:
            slowest = max(self.seconds, key=lambda index: self.seconds[index])
            lines.append(
                f"audio: {self.audio_s:.1f} s in {busy_s:.1f} s of all shards, {self.audio_s / busy_s:.2f} × real "
                f"time each; slowest shard: {slowest}/{self.shards}, {self.seconds[slowest]:.1f} s"
            )
        if self.missing_shards:
            lines += _listed("shards without results", [f"{index}/{self.shards}" for index in self.missing_shards])
        lines += _listed("files without a result", self.missing)
        lines += _listed("files of several shards", self.duplicates)
        if len(self.made_by) > 1:
            lines += _listed("made in different ways", [_described(made) for made in self.made_by])
        failed = [error if name in error else f"{name}: {error}" for name, error in sorted(self.failed.items())]
        lines += _listed("failed", failed)
        return "\n".join(lines)


def merge(paths: Sequence[Path]) -> Merged:
    """The state of the batch that results files are about.

    Args:
        paths: results files, and folders of them.

    Raises:
        FileError: one that cannot be read, or is not a results file.
        UsageError: they are about different batches: other files, or another number of shards.
    """
    truncated: list[Path] = []
    runs: list[tuple[Path, Run]] = []
    for path in find_results(paths):
        runs += [(path, run) for run in _read(path, truncated)]
    runs.sort(key=lambda found: found[1].facts["started"])
    (first_path, first), *others = runs
    for path, run in others:
        if (run.shard.count, run.facts["digest"]) != (first.shard.count, first.facts["digest"]):
            raise UsageError(
                f"{first_path} ({first.facts['total']} files in {first.shard.count} shards) and {path} "
                f"({run.facts['total']} files in {run.shard.count} shards) are about different batches: names or "
                "sizes of the inputs, or the number of shards, differ"
            )
    files: dict[str, dict[str, Any]] = {}
    owners: dict[str, set[int]] = {}
    seconds: dict[int, float] = {}
    planned: dict[str, None] = {}
    made_by: list[dict[str, Any]] = []
    for _, run in runs:
        seconds[run.shard.index] = seconds.get(run.shard.index, 0.0) + run.seconds
        planned.update(dict.fromkeys(run.facts["names"]))
        for line in run.files:
            name = line["name"]
            owners.setdefault(name, set()).add(run.shard.index)
            if not (line["status"] == SKIPPED and files.get(name, {}).get("status") == DONE):
                files[name] = line
        made = {entry: run.facts.get(entry) for entry in ("model", "sampling", "stop_after")}
        if made not in made_by and any(line["status"] == DONE for line in run.files):
            made_by.append(made)
    return Merged(
        total=first.facts["total"],
        shards=first.shard.count,
        missing_shards=sorted(set(range(1, first.shard.count + 1)) - set(seconds)),
        files=files,
        missing=[name for name in planned if name not in files],
        duplicates=sorted(name for name, shards in owners.items() if len(shards) > 1),
        seconds=seconds,
        truncated=truncated,
        made_by=made_by,
    )


def _described(made: dict[str, Any]) -> str:
    """A model and its chain, in words."""
    chain = [f"{name} {value}" for name, value in (made["sampling"] or {}).items()]
    stopped = [] if made["stop_after"] is None else [f"stopped after step {made['stop_after']}"]
    return ", ".join([made["model"] or "no model", *chain, *stopped])


def _read(path: Path, truncated: list[Path]) -> Iterator[Run]:
    """The runs of a results file; `truncated` gets its path if lines are incomplete."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    run: Run | None = None
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            line = _checked(json.loads(text))
        except (ValueError, UsageError) as error:
            # what a killed run leaves: its file ends there, or the next run begins in the next line
            is_last = number == len(lines)
            if (run is not None and is_last) or (not is_last and _begins_run(lines[number]) and (run or _is_cut(text))):
                truncated.append(path)
                continue
            raise FileError(f"{path}: line {number} is not a line of a results file, which --results writes") from error
        if line["type"] == RUN:
            if run is not None:
                yield run
            run = Run(line)
        elif run is None:
            raise FileError(f"{path}: line {number} is a result without a run before it")
        else:
            run.files.append(line)
    if run is None:
        raise FileError(f"{path}: is empty; expected the results of a run")
    yield run


def _is_cut(text: bytes) -> bool:
    """Whether a line is the beginning of one that describes a run; with the names of all files, it is a long one."""
    return _begins_run(text) or b'{"type": "run"'.startswith(text)


def _begins_run(text: bytes) -> bool:
    return text.startswith(b'{"type": "run"')


def _checked(line: Any) -> dict[str, Any]:
    """A line, which has the entries of its type.

    Raises:
        ValueError: it is something else.
    """
    entries = _ENTRIES.get(str(line.get("type"))) if isinstance(line, dict) else None
    if entries is None or not all(isinstance(line.get(name), kind) for name, kind in entries.items()):
        raise ValueError("not a line of a results file")
    if line["type"] == RUN:
        Shard.parse(line["shard"])
    return dict(line)


def _listed(title: str, names: Sequence[str]) -> list[str]:
    """A title, and names below it; nothing if there are none."""
    if not names:
        return []
    more = [f"  … and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return [f"{title}: {len(names)}", *(f"  {name}" for name in names[:_SHOWN]), *more]
