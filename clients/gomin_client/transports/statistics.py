"""What a server counts for a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import TypeVar

# A server counts a request a moment after it has sent the answer: the usual delay, and the longest one.
COUNTED_LATE_S = 0.1
COUNTED_WITHIN_S = 2.0

Counted = TypeVar("Counted")


@dataclass(frozen=True)
class Statistics:
    """Counts for one model version.

    Attributes:
        inferences: number of items answered.
        executions: number of calls of the model; fewer than `inferences` if several items went as one batch.
        queue_s: total time that requests waited, in seconds.
        compute_input_s: total time to prepare their inputs, in seconds.
        compute_s: total time that the model ran, in seconds.
        compute_output_s: total time to prepare their outputs, in seconds.
        requests: number of requests answered without an error.
    """

    inferences: int
    executions: int
    queue_s: float
    compute_input_s: float
    compute_s: float
    compute_output_s: float
    requests: int

    def since(self, earlier: Statistics) -> Statistics:
        """The difference from an earlier state."""
        return Statistics(*(now - then for now, then in zip(astuple(self), astuple(earlier), strict=True)))

    @property
    def is_growth(self) -> bool:
        """For a difference: nothing has decreased, as it does if a server was restarted meanwhile."""
        return all(value >= 0 for value in astuple(self))


def total(counted: Sequence[Statistics]) -> Statistics:
    """The sum of the counts of several servers."""
    return Statistics(*(sum(values) for values in zip(*map(astuple, counted), strict=True)))


def settled(
    ask: Callable[[], Counted], enough: Callable[[Counted], bool] = lambda _: True, within_s: float = COUNTED_WITHIN_S
) -> Counted:
    """The counts of a server, once it has counted all requests that it has answered.

    Triton counts a request a moment after it has sent the answer, so a caller that asks at once may miss the last ones.
    Requests still in flight, of other callers or of callers that gave up, are not counted yet and not waited for.

    Args:
        ask: asks the server.
        enough: whether the counts can be complete.
        within_s: seconds after which the latest counts are taken; other callers may keep them changing.

    Returns:
        The first counts that were the same twice in a row and are enough, or the latest.
    """
    deadline = time.monotonic() + within_s
    now = ask()
    while time.monotonic() < deadline:
        before = now
        time.sleep(COUNTED_LATE_S)
        now = ask()
        if now == before and enough(now):
            break
    return now
