"""Runs contenders in turn, round after round, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.worker import Process

WARM_UP = 2  # calls of each contender
REST_S = 0.2  # lets the threads of the previous contender go to sleep


@dataclass
class Measured:
    """One contender in one comparison.

    Attributes:
        seconds: time of each round.
        cpu_seconds: CPU time of its process in each round; for a server's client without the server.
        ratios: speed relative to the first contender, in each round.
        peak_mb: peak memory of its process after the last call; for a server's client without the server.
    """

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    peak_mb: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """For results.json: medians and spreads."""
        return {
            "seconds": statistics.median(self.seconds),
            "seconds_range": [min(self.seconds), max(self.seconds)],
            "times_as_fast": statistics.median(self.ratios),
            "times_as_fast_range": [min(self.ratios), max(self.ratios)],
            "rounds": len(self.seconds),
            "seconds_of_rounds": self.seconds,
            "cpu_seconds": statistics.median(self.cpu_seconds),
            "peak_mb": self.peak_mb,
        }


def compare(
    contenders: Mapping[str, Callable[[], Process]], frames: Sequence[int], rounds: int, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Measure contenders against the first of them.

    Args:
        contenders: name → starts its process.
        frames: mel frames of the calls, one after the other, the first two of which warm up; then again from the first.
        rounds: the number of calls for each, after two calls to warm up.
        say: called with a line of progress for each round.
    """
    workers = {}
    for name, start in contenders.items():
        say(f"  starting {name}")
        workers[name] = start()
        for call in range(WARM_UP):
            workers[name].call(frames[call % len(frames)])
    measured = {name: Measured() for name in workers}
    for turn in range(rounds):
        for name, worker in workers.items():
            time.sleep(REST_S)
            cost = worker.call(frames[(WARM_UP + turn) % len(frames)])
            measured[name].seconds.append(cost.elapsed_s)
            measured[name].cpu_seconds.append(cost.cpu_s)
        first = next(iter(measured.values())).seconds[-1]
        for one in measured.values():
            one.ratios.append(first / one.seconds[-1])
        say(f"  round {turn + 1} of {rounds}: " + ", ".join(f"{m.seconds[-1]:.3f}" for m in measured.values()))
    for name, worker in workers.items():
        measured[name].peak_mb = worker.close()
    return {name: one.to_dict() for name, one in measured.items()}
