"""A load for a live server: so many requests at a time for so long, and what came of it."""

from __future__ import annotations

import math
import statistics
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.contract.choices import MOST_CONCURRENT
from gomin_client.errors import AccessError, GominError, InferenceError, UsageError
from gomin_client.inference.workers import Workers
from gomin_client.mel.features import Mel
from gomin_client.transports.base import Statistics, settled
from gomin_client.vocoder import Vocoder

QUANTILES = (50, 95, 99)
PAUSE_AFTER_FAILURE_S = 0.2  # a server in trouble is not to be hammered, and failures at such a rate tell nothing
LONGEST_REQUEST_S = 60  # of audio; what a server holds for a request grows with it


@dataclass(frozen=True)
class Level:
    """One number of requests at a time.

    Attributes:
        concurrency: that number.
        latencies_s: seconds that each answered request took, in the order of their ends.
        errors: of those that failed.
        audio_s: seconds of audio that were made.
        elapsed_s: from the first request to the last answer.
        counted: what the server counted meanwhile, of all its callers; None in-process, where it does not tell, and
            where not all is in it that was answered, since a server was restarted or has gone.
    """

    concurrency: int
    latencies_s: list[float]
    errors: list[str]
    audio_s: float
    elapsed_s: float
    counted: Statistics | None

    @property
    def times_real_time(self) -> float:
        """Seconds of audio per second."""
        return self.audio_s / self.elapsed_s

    @property
    def quantiles_s(self) -> dict[int, float | None]:
        """Percent → seconds in which that many of the requests were answered."""
        if not self.latencies_s:
            return dict.fromkeys(QUANTILES)
        return {quantile: float(np.percentile(self.latencies_s, quantile)) for quantile in QUANTILES}

    @property
    def queue_s(self) -> float | None:
        """Seconds that a request waited on the server, on average."""
        return self._per_request(self.counted.queue_s) if self.counted else None

    @property
    def compute_s(self) -> float | None:
        """Seconds that the model took for a request, or for the batch that it was in, on average."""
        return self._per_request(self.counted.compute_s) if self.counted else None

    @property
    def batch(self) -> float | None:
        """Items that a call of the model had, on average."""
        return self.counted.inferences / self.counted.executions if self.counted and self.counted.executions else None

    def _per_request(self, seconds: float) -> float | None:
        assert self.counted is not None
        return seconds / self.counted.requests if self.counted.requests else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "concurrency": self.concurrency,
            "requests": len(self.latencies_s),
            "failed": len(self.errors),
            "audio_s": self.audio_s,
            "elapsed_s": self.elapsed_s,
            "times_real_time": self.times_real_time,
            "latency_s": {
                "mean": statistics.fmean(self.latencies_s) if self.latencies_s else None,
                **{f"p{quantile}": seconds for quantile, seconds in self.quantiles_s.items()},
            },
            "server": {"queue_s": self.queue_s, "compute_s": self.compute_s, "batch": self.batch},
            "errors": sorted(set(self.errors)),
        }


HEADER = (
    f"{'at a time':>9} {'requests':>9} {'× real time':>12} "
    + " ".join(f"{f'p{quantile} ms':>8}" for quantile in QUANTILES)
    + f" {'queue ms':>9} {'compute ms':>11} {'batch':>6}"
)


def line(level: Level) -> str:
    """A level as a line below `HEADER`."""
    quantiles = " ".join(f"{_ms(seconds):>8}" for seconds in level.quantiles_s.values())
    batch = "-" if level.batch is None else f"{level.batch:.1f}"
    return (
        f"{level.concurrency:>9} {len(level.latencies_s):>9} {level.times_real_time:>12.2f} {quantiles} "
        f"{_ms(level.queue_s):>9} {_ms(level.compute_s):>11} {batch:>6}"
    ) + (f"  {len(level.errors)} failed" if level.errors else "")


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f}"


def make_mel(vocoder: Vocoder, seconds: float) -> Mel:
    """(bands, frames) of noise, as long as it says; how long a model takes does not depend on what it is given.

    Raises:
        UsageError: not a length.
    """
    settings = vocoder.contract.mel
    if not 0 < seconds < 86400:
        raise UsageError(f"{seconds} s of audio a request: expected more than 0 and less than a day")
    frames = max(1, round(seconds * settings.sample_rate / settings.hop_length))
    mel: NDArray[np.float32] = np.random.default_rng(0).uniform(0, 1, (settings.n_mels, frames)).astype(np.float32)
    return mel


def run_level(vocoder: Vocoder, mel: Mel, concurrency: int, duration_s: float) -> Level:
    """Keep so many requests under way for so long; those under way at the end are waited for.

    Args:
        vocoder: where they go.
        mel: of each request.
        concurrency: requests at a time.
        duration_s: seconds after which none is begun any more; each of them is begun once at least.

    Raises:
        UsageError: a number out of range.
        ServerError: the server cannot be reached.
    """
    if not 1 <= concurrency <= MOST_CONCURRENT:
        raise UsageError(f"{concurrency} requests at a time: expected 1 to {MOST_CONCURRENT}")
    if not 0 <= duration_s < math.inf:
        raise UsageError(f"{duration_s} s: expected 0 or more, and an end")
    latencies: list[float] = []
    errors: list[str] = []
    ended = threading.Event()
    before = _settled(vocoder)
    begin = time.monotonic()

    def go_on() -> None:
        while True:
            started = time.monotonic()
            try:
                vocoder.synthesize(mel, force=True)
                latencies.append(time.monotonic() - started)
            except GominError as error:
                errors.append(str(error))
                ended.wait(PAUSE_AFTER_FAILURE_S)
            if ended.is_set() or time.monotonic() - begin >= duration_s:
                return

    workers = Workers(concurrency)
    try:
        for future in [workers.submit(go_on) for _ in range(concurrency)]:
            future.result()
    finally:
        ended.set()  # interrupted: none is begun any more
        workers.close()
    elapsed = time.monotonic() - begin
    counted = _counted(vocoder, before, len(latencies))
    audio_s = len(latencies) * mel.shape[-1] * vocoder.contract.mel.hop_length / vocoder.sample_rate
    return Level(concurrency, latencies, errors, audio_s, elapsed, counted)


def _settled(vocoder: Vocoder) -> Statistics | None:
    """What the server has counted so far, if it tells: a load can be put on it all the same."""
    try:
        return settled(vocoder.statistics)
    except (AccessError, InferenceError):
        return None


def _counted(vocoder: Vocoder, before: Statistics | None, answered: int) -> Statistics | None:
    """What the server has counted since, if that is all that it has answered."""
    if before is None:
        return None

    def is_all(now: Statistics | None) -> bool:
        return now is not None and now.since(before).is_growth and now.since(before).requests >= answered

    try:
        now = settled(vocoder.statistics, is_all)
    except GominError:  # it has gone, or the model; what was measured is there all the same
        return None
    return now.since(before) if now is not None and is_all(now) else None
