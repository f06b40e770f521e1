"""When a server is restarted, and when that is given up."""

from __future__ import annotations

from collections import deque

PERIOD_S = 60.0
FAILED_STARTS = 5
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 2.0


class Restarts:
    """A limited number of restarts in a minute, with growing delays.

    Args:
        limit: The number of restarts within a minute after which there is no other. 0: there is none at all.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._times: deque[float] = deque()
        self._failed_starts = 0

    @property
    def recent(self) -> int:
        """The number of restarts in the last minute."""
        return len(self._times)

    def delay(self, now: float, was_ready: bool) -> float | None:
        """Count a restart.

        Args:
            now: The time, in seconds.
            was_ready: Whether the server has been ready since it was started last.

        Returns:
            Seconds until the restart; None: the server is not restarted, because the limit is reached or because
            it failed to start five times in succession.
        """
        while self._times and now - self._times[0] > PERIOD_S:
            self._times.popleft()
        self._failed_starts = 0 if was_ready else self._failed_starts + 1
        if len(self._times) >= self.limit or self._failed_starts >= FAILED_STARTS:
            return None
        delay = min(FIRST_DELAY_S * 2.0 ** len(self._times), LONGEST_DELAY_S)
        self._times.append(now)
        return delay
