"""A soak: half of its time without faults, half with processes that are killed while requests are in flight."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from tests.server.processes import descendants, is_alive, leftovers
from tests.soak import resources
from tests.soak.load import Counts, Load, cases
from tests.soak.resources import Sample
from tests.support import RunningServer, free_ports, serving

FAULTS = ("helper killed", "server killed", "launcher stopped", "launcher killed")
RECOVERY_S = 60.0
READY_AGAIN = "the server is ready again"
MIN_SAMPLES = 4  # a first and a last half of two each


@dataclass(frozen=True)
class Settings:
    """How long, in seconds.

    Attributes:
        seconds: the whole soak.
        round_s: the load before each sample and around each fault.
        pause_s: each client's pause between two requests; 0: as much load as there can be.
    """

    seconds: float
    round_s: float = 15.0
    pause_s: float = 0.0


@dataclass
class Result:
    """What a soak found.

    Attributes:
        counts: the requests.
        faults: number of each fault that was caused.
        recovery_s: the longest time from each fault until a server was ready and a request answered.
        calm: samples without faults, from one server, after a quarter of them.
        disturbed: samples after faults.
        problems: everything that should not be, one line for each; empty: the soak passed.
    """

    counts: Counts = field(default_factory=Counts)
    faults: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))
    recovery_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0.0))
    calm: list[Sample] = field(default_factory=list)
    disturbed: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Deployment:
    """A gomin-server that can be started again on the same ports."""

    def __init__(self, repository: Path, home: Path) -> None:
        self.ports = free_ports(3)
        self.servers: list[RunningServer] = []
        self._repository = repository
        self._home = home
        self._processes: set[int] = set()
        self._context: AbstractContextManager[RunningServer] | None = None

    @property
    def server(self) -> RunningServer:
        return self.servers[-1]

    def start(self) -> None:
        log = self._home / f"server-{len(self.servers)}.log"
        # under constant load, a server that is told to end answers until this time is over (30 s by default)
        self._context = serving(self._repository, log, "--exit-timeout-secs=1", ports=self.ports)
        self.servers.append(self._context.__enter__())

    def stop(self) -> None:
        """Stop the server; what it ran is checked by `debris`."""
        self.note_processes()
        if self._context is not None:
            if self.server.process.poll() is None:
                self.server.stop()
            self._context.__exit__(None, None, None)
            self._context = None

    def note_processes(self) -> None:
        self._processes |= descendants(self.server.process.pid)

    def cause(self, fault: str) -> None:
        """Cause a fault; returns when a server is ready again, or after a minute."""
        self.note_processes()
        if fault == "helper killed":
            helpers = sorted(descendants(self.server.tritonserver))
            self._kill(helpers[len(self.servers) % len(helpers)])  # another model's each time
        elif fault == "server killed":
            self._kill(self.server.tritonserver)
        else:
            if fault == "launcher killed":
                self.server.process.kill()
                self.server.process.wait()
            self.stop()
            self.start()

    def _kill(self, process: int) -> None:
        """Kill a process of the server, and wait until the launcher has restarted it."""
        restarts = self.server.log_text.count(READY_AGAIN)
        os.kill(process, signal.SIGKILL)
        deadline = time.monotonic() + RECOVERY_S
        while self.server.log_text.count(READY_AGAIN) == restarts and time.monotonic() < deadline:
            time.sleep(0.1)

    def debris(self) -> list[str]:
        """What stopped servers left behind."""
        alive = [f"process {pid} is alive" for pid in self._processes if is_alive(pid)]
        return alive + [f"{path} exists" for server in self.servers for path in leftovers(server)]


def soak(repository: Path, home: Path, settings: Settings, say: Callable[[str], None]) -> Result:
    """Run a soak on a model repository with a GAN and a diffusion model; logs go to `home`."""
    result = Result()
    deployment = Deployment(repository, home)
    say("in-process results")
    requests = cases(repository)
    with _running(deployment):
        grpc, http = deployment.server.grpc, deployment.server.http
        load = Load(requests, [grpc, grpc, http], settings.pause_s)
        result.counts = load.counts
        started = time.monotonic()
        say("without faults")
        while time.monotonic() - started < settings.seconds / 2 or len(result.calm) < MIN_SAMPLES + 1:
            with load.running():
                time.sleep(settings.round_s)
            load.send_longest()
            result.calm.append(resources.sample(deployment.server))
        del result.calm[: max(1, len(result.calm) // 4)]  # allocators warm up
        say("with faults")
        for fault in cycle(FAULTS):
            with load.running():
                load.wait_for_answers(1, RECOVERY_S)
                before = time.monotonic()
                deployment.cause(fault)
                if not load.wait_for_answers(1, RECOVERY_S):
                    result.problems.append(f"{fault}: no answers within {RECOVERY_S:.0f} s")
                result.recovery_s[fault] = max(result.recovery_s[fault], time.monotonic() - before)
                time.sleep(settings.round_s / 2)
            result.faults[fault] += 1
            load.send_longest()
            result.disturbed.append(resources.sample(deployment.server))
            if time.monotonic() - started >= settings.seconds and len(result.disturbed) >= MIN_SAMPLES:
                break
    result.problems += load.counts.faults
    for name, samples in (("without faults", result.calm), ("with faults", result.disturbed)):
        result.problems += [f"{name}: {line}" for line in resources.growth(*halves(samples))]
    result.problems += [f"after the end: {line}" for line in deployment.debris()]
    return result


def halves(samples: list[Sample]) -> tuple[Sample, Sample]:
    """The medians of the first and of the last half."""
    middle = len(samples) // 2
    return resources.median_of(samples[:middle]), resources.median_of(samples[-middle:])


@contextmanager
def _running(deployment: Deployment) -> Iterator[None]:
    deployment.start()
    try:
        yield
    finally:
        deployment.stop()
