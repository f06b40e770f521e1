"""Latency of small requests, and what it consists of: python -m benchmarks.latency [REPOSITORY] [--requests N].

Sends requests one after the other, in-process and through a real Triton server, and prints tables: quantiles of the
latency of a window, of the first sound of a stream and of a chain, and where the time goes; how many requests took half
a second longer than the median; and what the client asks for before a request that follows a pause. Without a
repository, exports the demo models.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import processes
from gomin_client import Vocoder
from gomin_client.contract.model import DENOISER_MODEL, DIFFUSION_MODEL, GAN_MODEL
from gomin_client.transports.base import Transport
from gomin_client.transports.registry import connect
from gomin_client.transports.statistics import COUNTED_WITHIN_S, Statistics
from tests.support import DEMO_CHECKPOINT, UNPROBED, run, serving

DEMO_DIFFUSION = DEMO_CHECKPOINT.with_name("demo_diffusion.pt")
FRAMES = (64, 16, 1)
STREAM_FRAMES = 160
STEPS = 10
CHAIN_FRAMES = 24
STALL_S = 0.45  # Triton's batcher looks again after half a second: docs/performance.md
WARM_UP = 2
PARTS = "client | network | queue | copies | model"


@dataclass(frozen=True)
class Threads:
    """What the threads of some processes did so far, in seconds: see proc(5), schedstat.

    Attributes:
        running: CPU time.
        waiting: the time for which they could have run, but a processor was not free.
    """

    running: float
    waiting: float

    @classmethod
    def of(cls, pids: Sequence[int]) -> Threads:
        """The sum over all threads of these processes."""
        total = np.zeros(2)
        for pid in pids:
            for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with suppress(OSError):  # the thread has ended
                    total += [int(field) for field in file.read_text().split()[:2]]
        return cls(total[0] / 1e9, total[1] / 1e9)


def timed(calls: Mapping[str, Callable[[], object]], count: int) -> dict[str, NDArray[np.float64]]:
    """Seconds of each of some calls, in turn, after two of each to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(count + WARM_UP):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn >= WARM_UP:
                seconds[name].append(time.perf_counter() - started)
    return {name: np.array(taken) for name, taken in seconds.items()}


def quantiles(seconds: NDArray[np.float64]) -> str:
    """Median and 95 % quantile in milliseconds, as cells of a table."""
    return " | ".join(f"{1000 * value:.2f}" for value in np.percentile(seconds, (50, 95)))


def row(name: str, seconds: NDArray[np.float64], parts: Sequence[float] = ()) -> str:
    """A line of a table: the quantiles, the stalls, and the milliseconds of parts of a request."""
    stalls = int((seconds > np.median(seconds) + STALL_S).sum())
    cells = " | ".join("–" if np.isnan(part) else f"{1000 * part:.2f}" for part in parts)
    return f"| {name} | {quantiles(seconds)} | {stalls} of {len(seconds)} | {cells or '– | – | – | – | –'} |"


def per_request(before: Statistics | None, after: Statistics | None) -> tuple[float, ...]:
    """Mean seconds of a request in the queue, for the copies of its tensors, and in the model, by the server."""
    if before is None or after is None or after.requests == before.requests:
        return ()
    count = after.requests - before.requests
    copies = after.compute_input_s + after.compute_output_s - before.compute_input_s - before.compute_output_s
    return (after.queue_s - before.queue_s) / count, copies / count, (after.compute_s - before.compute_s) / count


def _mel(vocoder: Vocoder, frames: int) -> NDArray[np.float32]:
    """(n_mels, frames) for this model."""
    return np.random.default_rng(0).random((vocoder.contract.mel.n_mels, frames), np.float32)


def served(transport: Transport, version: int, call: Callable[[], object]) -> tuple[float, ...]:
    """Seconds of a request to the GAN, and of its parts that the server counts, a moment later; see `per_request`."""
    before = transport.statistics(GAN_MODEL, version)
    started = time.perf_counter()
    call()
    taken = time.perf_counter() - started
    give_up_at = time.monotonic() + COUNTED_WITHIN_S
    while not (parts := per_request(before, transport.statistics(GAN_MODEL, version))) and before is not None:
        if time.monotonic() > give_up_at:
            raise SystemExit(f"{transport.url} does not count its requests")
    return taken, *parts


def windows(transports: Mapping[str, Transport], count: int) -> list[str]:
    """The table of `Vocoder.synthesize` of one window of the GAN; the transports take turns.

    All parts are medians. *client* is what `synthesize` takes longer than the request in it, and *network* what the
    request takes longer than the server says: protocol, connection, Triton's front end. In-process all is *model*.
    The server's clock can stop after its answer has arrived: on a busy machine *network* may be just below zero.
    """
    lines = [f"| one window | p50, ms | p95, ms | stalls | {PARTS} |", "|---|---|---|---|---|---|---|---|---|"]
    vocoders = {name: Vocoder(transport, GAN_MODEL) for name, transport in transports.items()}
    for frames in FRAMES:
        wholes: dict[str, list[tuple[float, ...]]] = {name: [] for name in transports}
        requests: dict[str, list[tuple[float, ...]]] = {name: [] for name in transports}
        for turn in range(count + WARM_UP):
            for name, transport in transports.items():
                vocoder = vocoders[name]
                mel = _mel(vocoder, frames)
                inputs = {"mel": mel[np.newaxis]}
                # the first after a pause asks for the model's description: see `questions`
                served(transport, vocoder.version, partial(vocoder.synthesize, mel[:, :1]))
                whole = served(transport, vocoder.version, partial(vocoder.synthesize, mel))
                infer = partial(transport.infer, GAN_MODEL, vocoder.version, inputs)
                request = served(transport, vocoder.version, infer)
                if turn >= WARM_UP:
                    wholes[name].append(whole)
                    requests[name].append(request)
        for name in transports:
            lines.append(row(f"{frames} frames, {name}", *_parts(np.array(wholes[name]), np.array(requests[name]))))
    return lines


def _parts(wholes: NDArray[np.float64], requests: NDArray[np.float64]) -> tuple[NDArray[np.float64], Sequence[float]]:
    """Seconds of all calls of `synthesize`, and the medians of `PARTS`.

    Args:
        wholes: what `served` found for each call of `synthesize`.
        requests: the same for each request by itself.
    """
    seconds = wholes[:, 0]
    if wholes.shape[1] == 1:  # in-process
        return seconds, (np.nan, np.nan, np.nan, np.nan, float(np.median(seconds)))
    outside, network = (float(np.median(calls[:, 0] - calls[:, 1:].sum(axis=1))) for calls in (wholes, requests))
    return seconds, (outside - network, network, *np.median(wholes[:, 1:], axis=0))


def first_sounds(transports: Mapping[str, Transport], count: int) -> list[str]:
    """The table of the first sound of a stream whose mel arrives faster than it is synthesized."""
    lines = ["| first sound of a stream | p50, ms | p95, ms |", "|---|---|---|"]

    def first(vocoder: Vocoder) -> float:
        mel = _mel(vocoder, STREAM_FRAMES)
        started = time.perf_counter()
        stream = vocoder.stream(np.split(mel, 10, axis=1), first_window=vocoder.first_window)
        next(stream)
        taken = time.perf_counter() - started
        deque(stream, maxlen=0)  # the next stream must not wait for the rest of this one
        return taken

    vocoders = {name: Vocoder(transport, GAN_MODEL) for name, transport in transports.items()}
    seconds: dict[str, list[float]] = {name: [] for name in transports}
    for turn in range(count + WARM_UP):
        for name, vocoder in vocoders.items():
            taken = first(vocoder)
            if turn >= WARM_UP:
                seconds[name].append(taken)
    return [*lines, *(f"| {name} | {quantiles(np.array(taken))} |" for name, taken in seconds.items())]


def questions(transports: Mapping[str, Transport], count: int) -> list[str]:
    """The table of the description of a model, which a client asks for at first and after a pause."""
    lines = ["| description of a model | p50, ms | p95, ms |", "|---|---|---|"]
    calls = {name: lambda transport=transport: transport.describe(GAN_MODEL) for name, transport in transports.items()}
    return [*lines, *(f"| {name} | {quantiles(seconds)} |" for name, seconds in timed(calls, count).items())]


def chains(transports: Mapping[str, Transport], pids: Sequence[int], rounds: int) -> list[str]:
    """The table of a chain, and of its mean step.

    Args:
        transports: in-process first; each of the others is compared with it, round by round.
        pids: processes of the server.
        rounds: number of chains of each.
    """
    vocoder = Vocoder(next(iter(transports.values())), DIFFUSION_MODEL)
    version = vocoder.version
    mel = _mel(vocoder, CHAIN_FRAMES)[np.newaxis]
    inputs: dict[str, NDArray[Any]] = {"mel": mel, "seed": np.array([[1]], np.uint64)}
    seconds: dict[str, list[float]] = {name: [] for name in transports}
    parts: dict[str, list[tuple[float, ...]]] = {name: [] for name in transports}
    for turn in range(rounds + 1):
        for name, transport in transports.items():
            before, threads = transport.statistics(DENOISER_MODEL, version), Threads.of([*pids, os.getpid()])
            started = time.perf_counter()
            transport.infer(DIFFUSION_MODEL, version, inputs, parameters={"sampler": "ddim", "steps": STEPS})
            taken = time.perf_counter() - started
            after = Threads.of([*pids, os.getpid()])
            served = per_request(before, transport.statistics(DENOISER_MODEL, version))
            if turn:
                seconds[name].append(taken)
                own = (taken / STEPS - sum(served), *served) if served else (np.nan,) * 4
                used = (after.running - threads.running, after.waiting - threads.waiting)
                parts[name].append((*own, used[0] / STEPS, used[1] / STEPS))
    names = "× in-process | of a step, ms: chain, call | queue | copies | denoiser | CPU time | waits for a core"
    lines = [f"| {STEPS} steps, {CHAIN_FRAMES} frames | p50, ms | p95, ms | {names} |", "|---|---|---|" + "---|" * 7]
    base = np.array(next(iter(seconds.values())))
    for name, taken_s in seconds.items():
        ratio = float(np.median(np.array(taken_s) / base))
        means = np.array(parts[name]).mean(axis=0)
        cells = " | ".join("–" if np.isnan(part) else f"{1000 * part:.2f}" for part in means)
        lines.append(f"| {name} | {quantiles(np.array(taken_s))} | {ratio:.3f} | {cells} |")
    return lines


def measure(repository: Path, log: Path, count: int, rounds: int) -> Iterator[list[str]]:
    """All tables, as Markdown, each as soon as it is measured.

    Args:
        repository: with the GAN and the diffusion model.
        log: where the server writes its log.
        count: number of requests of each kind.
        rounds: number of chains.
    """
    with ExitStack() as stack:
        server = stack.enter_context(serving(repository, log, UNPROBED))
        urls = {"in-process": f"local:{repository}", "gRPC": server.grpc, "HTTP": server.http}
        transports = {name: stack.enter_context(connect(url)) for name, url in urls.items()}
        yield windows(transports, count)
        yield first_sounds(transports, count)
        yield questions(transports, count)
        yield chains({name: transports[name] for name in ("in-process", "gRPC")}, processes(server), rounds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency")
    parser.add_argument("repository", nargs="?", type=Path, help="with a GAN and a diffusion model; default: the demo")
    parser.add_argument("--requests", type=int, default=30, help="of each kind (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="number of chains (default: %(default)s)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        repository = chosen.repository
        if repository is None:
            repository = home / "models"
            for kind, checkpoint in (("gan", DEMO_CHECKPOINT), ("diffusion", DEMO_DIFFUSION)):
                exported = run("gomin-export", kind, "--ckpt", checkpoint, "--repository", repository)
                if exported.returncode:
                    raise SystemExit(exported.stderr)
        for table in measure(repository, home / "log", chosen.requests, chosen.rounds):
            print("\n".join(table), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
