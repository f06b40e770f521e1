"""What a run of the client costs beside the model: python -m benchmarks.startup [CLIENT …].

Runs `gomin-client --help`, and `gomin-client reconstruct` of one second of audio through a real Triton server with the
demo model. Prints a table of medians: seconds from start to end, and CPU seconds of the client. Further programs, such
as the gomin-client of another environment, take turns with this one, and are compared with it round by round.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import soundfile

from benchmarks.worker import Cost
from gomin_client.files import audio
from gomin_client.mel import resampling
from tests.support import BIN, DEMO_CHECKPOINT, EXAMPLES, run, serving

RATE = 24000
ROUNDS = 11


def cost(command: Sequence[str | Path]) -> Cost:
    """Run a program that has to succeed."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)  # or Popen would wait for it again
    if process.returncode:
        raise SystemExit(f"{command[0]} failed with {process.returncode}")
    return Cost(elapsed, usage.ru_utime + usage.ru_stime)


def measure(clients: Sequence[Path], tasks: Mapping[str, Sequence[str | Path]], rounds: int) -> dict[str, list[Cost]]:
    """Run all clients with the arguments of all tasks, in turns; the first round warms up.

    Returns:
        "TASK, CLIENT" → its costs, one a round.
    """
    costs: dict[str, list[Cost]] = {}
    for turn in range(rounds + 1):
        for task, arguments in tasks.items():
            for client in clients:
                taken = cost([client, *arguments])
                if turn:
                    costs.setdefault(f"{task}, {client}", []).append(taken)
    return costs


def table(costs: Mapping[str, Sequence[Cost]], clients: int) -> str:
    """Markdown: the medians, and the median of the ratios to the first client in the same round."""
    rows = ["| | s | CPU s | CPU s relative to the first |", "|---|---|---|---|"]
    names = list(costs)
    for index, name in enumerate(names):
        own, first = costs[name], costs[names[index - index % clients]]
        ratio = statistics.median(one.cpu_s / other.cpu_s for one, other in zip(own, first, strict=True))
        elapsed = statistics.median(taken.elapsed_s for taken in own)
        cpu = statistics.median(taken.cpu_s for taken in own)
        rows.append(f"| {name} | {elapsed:.2f} | {cpu:.2f} | {ratio:.2f} |")
    return "\n".join(rows)


def main() -> None:
    """Measure and print."""
    clients = [BIN / "gomin-client", *map(Path, sys.argv[1:])]
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        recording = audio.read(max(EXAMPLES, key=lambda path: soundfile.info(path).duration))
        wave = resampling.resample(recording.mono()[0], recording.rate, RATE)[:RATE]
        soundfile.write(home / "second.wav", wave, RATE)
        exported = run("gomin-export", "gan", "--ckpt", DEMO_CHECKPOINT, "--repository", home / "models")
        if exported.returncode:
            raise SystemExit(exported.stderr)
        with serving(home / "models", home / "log") as server:
            reconstruct = ["reconstruct", str(home / "second.wav"), "-o", str(home / "out.wav"), "--quiet", "--url"]
            tasks = {"--help": ["--help"], "gRPC": [*reconstruct, server.grpc], "HTTP": [*reconstruct, server.http]}
            print(table(measure(clients, tasks, ROUNDS), len(clients)))


if __name__ == "__main__":
    main()
