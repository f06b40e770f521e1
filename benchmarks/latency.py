"""Latency of small requests, and what it consists of: python -m benchmarks.latency [REPOSITORY] [--requests N].

Sends requests of one window, one after the other, to the models of a repository, in-process and through a real Triton
server, and prints tables: quantiles of the latency, how many requests took half a second longer than the median, the
server's own account of its part, and what the client asks for before a request that follows a pause. A chain of a
diffusion model is compared in-process and through gRPC, in turn. Without a repository, exports the demo models. Takes
about two minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client import Vocoder
from gomin_client.contract.model import DENOISER_MODEL, DIFFUSION_MODEL, GAN_MODEL
from gomin_client.transports.base import Transport
from gomin_client.transports.registry import connect
from gomin_client.transports.statistics import Statistics
from tests.support import DEMO_CHECKPOINT, run, serving

DEMO_DIFFUSION = DEMO_CHECKPOINT.with_name("demo_diffusion.pt")
FRAMES = (64, 16, 1)
STEPS = 10
CHAIN_FRAMES = 24
STALL_S = 0.45  # Triton's batcher looks again after half a second: docs/performance.md


def timed(call: Callable[[], object], count: int) -> NDArray[np.float64]:
    """Seconds of each of some calls, after two to warm up."""
    seconds = []
    for turn in range(count + 2):
        started = time.perf_counter()
        call()
        if turn >= 2:
            seconds.append(time.perf_counter() - started)
    return np.array(seconds)


def row(name: str, seconds: NDArray[np.float64], server: Sequence[float] = ()) -> str:
    """A line of a table: the quantiles in milliseconds, the stalls, and the server's milliseconds of a request."""
    half, most = np.percentile(seconds, (50, 95)) * 1000
    stalls = int((seconds > np.median(seconds) + STALL_S).sum())
    cells = " | ".join(f"{1000 * part:.2f}" for part in server) or "– | – | –"
    return f"| {name} | {half:.2f} | {most:.2f} | {stalls} of {len(seconds)} | {cells} |"


def per_request(before: Statistics | None, after: Statistics | None) -> tuple[float, ...]:
    """Mean seconds of a request in the queue, in the model, and for the copies of its tensors, by the server."""
    if before is None or after is None or after.requests == before.requests:
        return ()
    count = after.requests - before.requests
    copies = after.compute_input_s + after.compute_output_s - before.compute_input_s - before.compute_output_s
    return (after.queue_s - before.queue_s) / count, (after.compute_s - before.compute_s) / count, copies / count


def requests(transports: Mapping[str, Transport], count: int) -> list[str]:
    """The table of single windows of the GAN: the whole of `Vocoder.synthesize`, and the request in it."""
    lines = ["| | p50, ms | p95, ms | stalls | queue | model | copies |", "|---|---|---|---|---|---|---|"]
    for frames in FRAMES:
        mel = np.random.default_rng(0).random((128, frames), np.float32)
        for name, transport in transports.items():
            vocoder = Vocoder(transport, GAN_MODEL)
            version = vocoder.version
            request = {"mel": mel[np.newaxis]}
            before = transport.statistics(GAN_MODEL, version)
            sent = timed(lambda: transport.infer(GAN_MODEL, version, request), count)  # noqa: B023
            parts = per_request(before, transport.statistics(GAN_MODEL, version))
            lines.append(row(f"{frames} frames, {name}, request", sent, parts))
            whole = timed(lambda: vocoder.synthesize(mel), count)  # noqa: B023
            lines.append(row(f"{frames} frames, {name}, `synthesize`", whole))
    return lines


def questions(transports: Mapping[str, Transport], count: int) -> list[str]:
    """The table of the description of a model, which a client asks for at first and after a pause."""
    lines = ["| description of a model | p50, ms | p95, ms |", "|---|---|---|"]
    for name, transport in transports.items():
        half, most = np.percentile(timed(lambda: transport.describe(GAN_MODEL), count), (50, 95)) * 1000  # noqa: B023
        lines.append(f"| {name} | {half:.2f} | {most:.2f} |")
    return lines


def chains(local: Transport, remote: Transport, rounds: int) -> list[str]:
    """What a chain takes through gRPC, relative to the same one in-process, in turn."""
    version = remote.describe(DIFFUSION_MODEL).versions[-1]
    mel = np.random.default_rng(0).random((1, 128, CHAIN_FRAMES), np.float32)
    inputs: dict[str, NDArray[Any]] = {"mel": mel, "seed": np.array([[1]], np.uint64)}
    seconds: dict[Transport, list[float]] = {local: [], remote: []}
    before = remote.statistics(DENOISER_MODEL, version)
    for turn in range(rounds + 1):
        for transport, taken in seconds.items():
            started = time.perf_counter()
            transport.infer(DIFFUSION_MODEL, version, inputs, parameters={"sampler": "ddim", "steps": STEPS})
            if turn:
                taken.append(time.perf_counter() - started)
    parts = per_request(before, remote.statistics(DENOISER_MODEL, version))
    ratios = [there / here for here, there in zip(seconds[local], seconds[remote], strict=True)]
    extra = [there - here for here, there in zip(seconds[local], seconds[remote], strict=True)]
    return [
        f"A chain of {STEPS} steps, {CHAIN_FRAMES} frames ({rounds} rounds): in-process "
        f"{statistics.median(seconds[local]):.3f} s, through gRPC {statistics.median(seconds[remote]):.3f} s, "
        f"{statistics.median(ratios):.3f} times as long ({min(ratios):.3f} – {max(ratios):.3f}), "
        f"{1000 * statistics.median(extra) / STEPS:.2f} ms more for a step.",
        "The denoiser's part of a step, by the server: "
        + ", ".join(f"{1000 * part:.2f} ms" for part in parts)
        + " in its queue, in the model, and for copies.",
    ]


def measure(repository: Path, log: Path, count: int, rounds: int) -> list[str]:
    """All tables, as Markdown.

    Args:
        repository: with the GAN and the diffusion model.
        log: where the server writes its log.
        count: number of requests of each kind.
        rounds: number of chains.
    """
    with ExitStack() as stack:
        server = stack.enter_context(serving(repository, log))
        urls = {"in-process": f"local:{repository}", "gRPC": server.grpc, "HTTP": server.http}
        transports = {name: stack.enter_context(connect(url)) for name, url in urls.items()}
        lines = [*requests(transports, count), "", *questions(transports, count), ""]
        return [*lines, *chains(transports["in-process"], transports["gRPC"], rounds)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency")
    parser.add_argument("repository", nargs="?", type=Path, help="with a GAN and a diffusion model; default: the demo")
    parser.add_argument("--requests", type=int, default=100, help="of each kind (default: %(default)s)")
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
        print("\n".join(measure(repository, home / "log", chosen.requests, chosen.rounds)))


if __name__ == "__main__":
    main()
