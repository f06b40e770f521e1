"""Clients that send mixed requests and compare each answer with the in-process result, sample by sample."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gomin_client import Connection, Vocoder
from gomin_client.errors import GominError

FRAMES = (1, 2, 7, 40, 41, 130, 300, 600)  # 600: two windows of the GAN
CHAIN_FRAMES = (1, 5, 12)
BLOCK_FRAMES = 16
DEADLINE_S = 0.03
TOLERANCE = {"gan": 1e-5, "diffusion": 1e-4}  # absolute, of samples with full scale ±1
SEED = 7

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A request and its answer: `mel` is (n_mels, frames), `wave` (samples,)."""

    model: str
    mel: Array
    wave: Array

    @property
    def seed(self) -> int | None:
        return SEED if self.model == "diffusion" else None


@dataclass
class Counts:
    """What became of the requests.

    Attributes:
        outcomes: number of "answered", "ended early" (stream closed by its reader) and "deadline" requests.
        difference: the largest distance of a sample from the in-process result, by model.
        faults: wrong answers and lost requests, one line for each.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    difference: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def cases(repository: Path) -> list[Case]:
    """Requests of mixed lengths for both models, answered in-process."""
    generator = np.random.default_rng(0)
    found = []
    for model, lengths in (("gan", FRAMES), ("diffusion", CHAIN_FRAMES)):
        with Vocoder(f"local:{repository}", model) as vocoder:
            for frames in lengths:
                mel = generator.uniform(0, 1, (vocoder.contract.mel.n_mels, frames)).astype(np.float32)
                wave = vocoder.synthesize(mel, seed=SEED if model == "diffusion" else None)
                found.append(Case(model, mel, wave))
    return found


class Load:
    """Clients, one thread for each.

    Args:
        cases: what they send.
        urls: the server's URL for each client.
        pause_s: what each client waits between two requests, in seconds.
    """

    def __init__(self, cases: Sequence[Case], urls: Sequence[str], pause_s: float = 0.0) -> None:
        self.counts = Counts()
        self._cases = cases
        self._urls = urls
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._rounds = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send requests during the block; at its end, wait for their answers. Each time, clients connect anew."""
        stopped = threading.Event()
        self._rounds += 1
        threads = [
            threading.Thread(target=self._run, args=(url, (self._rounds, number), stopped))
            for number, url in enumerate(self._urls)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopped.set()
            for thread in threads:
                thread.join()

    def send_longest(self) -> None:
        """Send the longest request of each model, so that the memory of servers of any age can be compared."""
        for model in TOLERANCE:
            case = max((case for case in self._cases if case.model == model), key=lambda case: case.mel.shape[1])
            with Vocoder(self._urls[0], model, connection=Connection(wait_s=120)) as vocoder:
                self._compare(case, vocoder.synthesize(case.mel, seed=case.seed))

    def wait_for_answers(self, count: int, timeout_s: float) -> bool:
        """Whether so many more requests are answered in time."""
        deadline, before = time.monotonic() + timeout_s, self.counts.outcomes["answered"]
        while time.monotonic() < deadline:
            if self.counts.outcomes["answered"] >= before + count:
                return True
            time.sleep(0.1)
        return False

    def _run(self, url: str, seed: tuple[int, int], stopped: threading.Event) -> None:
        generator = np.random.default_rng(seed)
        try:
            with (
                Vocoder(url, "gan", connection=Connection(wait_s=120)) as gan,
                Vocoder(url, "diffusion", connection=Connection(wait_s=120)) as diffusion,
                Vocoder(url, "gan", connection=Connection(wait_s=120, timeout_s=DEADLINE_S)) as impatient,
            ):
                vocoders = {"gan": gan, "diffusion": diffusion}
                while not stopped.is_set():
                    case = self._cases[generator.integers(len(self._cases))]
                    kind = generator.choice(["whole", "stream", "ended early", "deadline"], p=[0.6, 0.2, 0.1, 0.1])
                    if kind == "deadline" and case.model == "gan":
                        self._with_deadline(impatient, case)
                    else:
                        self._request(vocoders[case.model], case, kind)
                    stopped.wait(self._pause_s)
        except GominError as error:  # a request that its client gave up
            self._fault(f"{url}: lost: {type(error).__name__}: {error}")

    def _request(self, vocoder: Vocoder, case: Case, kind: str) -> None:
        if kind not in ("stream", "ended early"):
            self._compare(case, vocoder.synthesize(case.mel, seed=case.seed))
            return
        blocks = np.array_split(case.mel, range(BLOCK_FRAMES, case.mel.shape[1], BLOCK_FRAMES), axis=1)
        parts = vocoder.stream(blocks, seed=case.seed)
        if kind == "stream":
            self._compare(case, np.concatenate(list(parts), axis=-1))
            return
        first = next(parts)
        parts.close()  # cancels the requests in flight
        self._compare(case, first, "ended early")

    def _with_deadline(self, vocoder: Vocoder, case: Case) -> None:
        try:
            self._compare(case, vocoder.synthesize(case.mel))
        except GominError:
            with self._lock:
                self.counts.outcomes["deadline"] += 1

    def _compare(self, case: Case, wave: Array, outcome: str = "answered") -> None:
        """Compare an answer, or its beginning if its reader ended it."""
        expected = case.wave[: wave.shape[-1]] if outcome == "ended early" else case.wave
        if wave.shape != expected.shape:
            self._fault(f"{case.model}, {case.mel.shape[1]} frames: shape {wave.shape}, expected {expected.shape}")
            return
        difference = float(np.abs(wave - expected).max())
        with self._lock:
            self.counts.outcomes[outcome] += 1
            self.counts.difference[case.model] = max(difference, self.counts.difference.get(case.model, 0.0))
        if not difference <= TOLERANCE[case.model]:  # NaN is not below anything
            self._fault(f"{case.model}, {case.mel.shape[1]} frames: wrong by {difference:.2g}")

    def _fault(self, line: str) -> None:
        with self._lock:
            self.counts.faults.append(line)
