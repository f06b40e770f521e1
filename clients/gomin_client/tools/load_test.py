"""A load test of a live server: a number of concurrent requests for a given time, and the results."""

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
from gomin_client.inference.pinned import PinnedModel
from gomin_client.inference.stream import Workers
from gomin_client.mel.features import Mel
from gomin_client.transports.statistics import Statistics, settled

QUANTILES = (50, 95, 99)
PAUSE_AFTER_FAILURE_S = 0.2  # spares a server in trouble; more failures per second would say nothing more
LONGEST_REQUEST_S = 60  # of audio; the memory that a server needs for a request grows with it


@dataclass(frozen=True)
class LoadResult:
    """The results for one number of concurrent requests.

    Attributes:
        concurrency: the number of concurrent requests.
        latencies_s: seconds from request to response, of successful requests in the order of their ends.
        errors: messages of failed requests.
        audio_s: seconds of audio produced.
        elapsed_s: seconds from the first request to the last response.
        counted: the server's statistics for this time, of all its callers. None in-process; if the server does not
            report statistics; and if they lack some of the responses, since a server was restarted or is gone.
    """

    concurrency: int
    latencies_s: list[float]
    errors: list[str]
    audio_s: float
    elapsed_s: float
    counted: Statistics | None

    @property
    def times_real_time(self) -> float:
        """Seconds of audio produced per second."""
        return self.audio_s / self.elapsed_s

    @property
    def quantiles_s(self) -> dict[int, float | None]:
        """Percent → the latency, in seconds, that this share of the requests did not exceed."""
        if not self.latencies_s:
            return dict.fromkeys(QUANTILES)
        return {quantile: float(np.percentile(self.latencies_s, quantile)) for quantile in QUANTILES}

    @property
    def queue_s(self) -> float | None:
        """Mean time that a request waited in the server's queue, in seconds."""
        return self._per_request(self.counted.queue_s) if self.counted else None

    @property
    def compute_s(self) -> float | None:
        """Mean time that the model took for a request, or for the batch that contained it, in seconds."""
        return self._per_request(self.counted.compute_s) if self.counted else None

    @property
    def batch(self) -> float | None:
        """Mean number of items in a call of the model."""
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
    f"{'in flight':>9} {'requests':>9} {'× real time':>12} "
    + " ".join(f"{f'p{quantile} ms':>8}" for quantile in QUANTILES)
    + f" {'queue ms':>9} {'compute ms':>11} {'batch':>6}"
)


def row(result: LoadResult) -> str:
    """A result as a table row below `HEADER`."""
    quantiles = " ".join(f"{_ms(seconds):>8}" for seconds in result.quantiles_s.values())
    batch = "-" if result.batch is None else f"{result.batch:.1f}"
    return (
        f"{result.concurrency:>9} {len(result.latencies_s):>9} {result.times_real_time:>12.2f} {quantiles} "
        f"{_ms(result.queue_s):>9} {_ms(result.compute_s):>11} {batch:>6}"
    ) + (f"  {len(result.errors)} failed" if result.errors else "")


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f}"


def make_mel(vocoder: PinnedModel, seconds: float) -> Mel:
    """Uniform noise, (n_mels, frames): the time that a model takes does not depend on the values.

    Args:
        vocoder: the model that the mel is for.
        seconds: duration of the audio that the model makes of it.

    Raises:
        UsageError: a duration out of range.
    """
    settings = vocoder.contract.mel
    if not 0 < seconds < 86400:
        raise UsageError(f"{seconds} s of audio per request: expected more than 0 and less than a day")
    frames = max(1, round(seconds * settings.sample_rate / settings.hop_length))
    mel: NDArray[np.float32] = np.random.default_rng(0).uniform(0, 1, (settings.n_mels, frames)).astype(np.float32)
    return mel


def prepare(vocoder: PinnedModel, window: int | None, seconds: float) -> tuple[PinnedModel, Mel]:
    """Unless a window is given, make each mel one request to the server.

    Args:
        vocoder: the model.
        window: number of frames in one request to the server, as chosen by the user, or None.
        seconds: duration of the audio of one mel.

    Returns:
        The vocoder, on the same connection, and a mel for `run_load`.

    Raises:
        UsageError: a duration out of range, or too long for one request.
    """
    mel = make_mel(vocoder, seconds)
    if window is not None:
        return vocoder, mel
    if seconds > LONGEST_REQUEST_S:
        raise UsageError(
            f"{seconds:g} s of audio in one request to the server, which takes much memory beyond "
            f"{LONGEST_REQUEST_S} s; give the number of mel frames of a request with --window"
        )
    frames, longest = mel.shape[-1], vocoder.contract.max_frames
    if longest is not None and frames > longest:
        raise UsageError(
            f"{seconds:g} s of audio are {frames} frames, and the model takes at most {longest} in one request "
            "(gomin.max_frames in its config.pbtxt); give the number of mel frames of a request with --window"
        )
    return vocoder.with_window(max(vocoder.window, frames)), mel


def send(vocoder: PinnedModel, mel: Mel) -> None:
    """Make the audio of one mel.

    Raises:
        GominError: see `Vocoder.synthesize`.
    """
    for _ in vocoder.vocoded([mel[np.newaxis]], None):
        pass


def run_load(vocoder: PinnedModel, mel: Mel, concurrency: int, duration_s: float) -> LoadResult:
    """Keep a number of requests in flight for a given time; requests in flight at the end are completed.

    Args:
        vocoder: sends the requests.
        mel: the content of each request.
        concurrency: the number of requests in flight.
        duration_s: seconds after which no request is started. At least `concurrency` requests are made.

    Raises:
        UsageError: a number out of range.
        ServerError: the server cannot be reached.
    """
    if not 1 <= concurrency <= MOST_CONCURRENT:
        raise UsageError(f"{concurrency} requests in flight: expected 1 to {MOST_CONCURRENT}")
    if not 0 <= duration_s < math.inf:
        raise UsageError(f"{duration_s} s: expected a finite number, 0 or more")
    latencies: list[float] = []
    errors: list[str] = []
    ended = threading.Event()
    before = _settled(vocoder)
    begin = time.monotonic()

    def send_repeatedly() -> None:
        while True:
            started = time.monotonic()
            try:
                send(vocoder, mel)
                latencies.append(time.monotonic() - started)
            except GominError as error:
                errors.append(str(error))
                ended.wait(PAUSE_AFTER_FAILURE_S)
            if ended.is_set() or time.monotonic() - begin >= duration_s:
                return

    workers = Workers(concurrency)
    try:
        for future in [workers.submit(send_repeatedly) for _ in range(concurrency)]:
            future.result()
    finally:
        ended.set()  # if interrupted: no further request is started
        workers.close()
    elapsed = time.monotonic() - begin
    counted = _counted(vocoder, before, len(latencies))
    audio_s = len(latencies) * mel.shape[-1] * vocoder.contract.mel.hop_length / vocoder.sample_rate
    return LoadResult(concurrency, latencies, errors, audio_s, elapsed, counted)


def _settled(vocoder: PinnedModel) -> Statistics | None:
    """The server's statistics so far; None if it does not report any, which does not prevent a load test."""
    try:
        return settled(vocoder.statistics)
    except (AccessError, InferenceError):
        return None


def _counted(vocoder: PinnedModel, before: Statistics | None, answered: int) -> Statistics | None:
    """The server's statistics since `before`, if they include all responses."""
    if before is None:
        return None

    def is_all(now: Statistics | None) -> bool:
        return now is not None and now.since(before).is_growth and now.since(before).requests >= answered

    try:
        now = settled(vocoder.statistics, is_all)
    except GominError:  # the server or the model is gone; the latencies are still valid
        return None
    return now.since(before) if now is not None and is_all(now) else None
