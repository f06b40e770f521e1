"""make soak-batch: many files while processes of the server are killed: python -m tests.soak.batch.

Exits with 1 if a file is missing, differs in a sample from the same batch without faults, or was not written while the
processes were killed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from tests.gated import Gate
from tests.soak.soak import Deployment
from tests.support import BIN, EXAMPLES, SHARED_GAN

FAULTS = ("helper killed", "server killed", "launcher killed")
SECONDS = (1.0, 4.0)  # of a file
TIMEOUT_S = 1800.0


@dataclass
class Result:
    """What became of a batch.

    Attributes:
        faults: How often each fault was caused while files were left to do.
        seconds: How long the batch took.
        problems: One line for each file that is missing or different, and for everything else that should not be.
    """

    faults: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def run(repository: Path, home: Path, files: int, kills: int, say: Callable[[str], None] = print) -> Result:
    """Reconstruct files twice, undisturbed and while each kind of process is killed; compare the outputs.

    Args:
        repository: A model repository with a GAN.
        home: An empty directory.
        files: How many.
        kills: How often each kind of process is killed.
        say: Prints a line.
    """
    result = Result()
    write_recordings(home / "recordings", files)
    deployment = Deployment(repository, home)
    deployment.start()
    try:
        say("undisturbed")
        undisturbed = reconstruct(deployment, home, "undisturbed")
        assert undisturbed.wait(timeout=TIMEOUT_S) == 0, (home / "undisturbed.log").read_text()
        say("with faults")
        started = time.monotonic()
        sequence = FAULTS * kills
        share = files // (len(sequence) + 2)
        gate = Gate(home / "gate", 0)
        client = reconstruct(deployment, home, "disturbed", gate.client)
        for number, fault in enumerate(sequence, start=1):
            enough = number * share
            gate.allow(enough + share)  # so that files are left to do at the next fault
            while client.poll() is None and written(home / "disturbed") < enough:
                time.sleep(0.01)
            if client.poll() is not None:
                result.problems.append(f"the batch ended before fault {number} of {len(sequence)}")
                break
            deployment.cause(fault)
            result.faults[fault] += 1
        gate.allow()
        status = client.wait(timeout=TIMEOUT_S)
        result.seconds = time.monotonic() - started
        if status:
            result.problems.append(f"status {status}: {(home / 'disturbed.log').read_text()[-2000:]}")
    finally:
        deployment.stop()
    result.problems += differences(home / "undisturbed", home / "disturbed", files)
    result.problems += [f"after the end: {line}" for line in deployment.debris()]
    return result


def write_recordings(folder: Path, count: int) -> None:
    """Parts of the example recordings, of different lengths."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    examples = [soundfile.read(path, dtype="float32") for path in EXAMPLES]
    for number in range(count):
        samples, rate = examples[number % len(examples)]
        length = min(int(generator.uniform(*SECONDS) * rate), len(samples))
        first = int(generator.integers(0, len(samples) - length + 1))
        soundfile.write(folder / f"{number:03}.wav", samples[first : first + length], rate)


def reconstruct(
    deployment: Deployment, home: Path, name: str, client: Sequence[str | Path] = (BIN / "gomin-client",)
) -> subprocess.Popen[bytes]:
    """Start the client on all recordings."""
    command = [*client, "reconstruct", home / "recordings", "-o", home / name, "--jobs", "2"]
    with (home / f"{name}.log").open("wb") as log:
        return subprocess.Popen([*command, "--url", deployment.server.grpc], stdout=log, stderr=subprocess.STDOUT)


def written(folder: Path) -> int:
    """Number of complete outputs."""
    return len(list(folder.glob("*.wav")))


def differences(expected: Path, found: Path, count: int) -> list[str]:
    """One line for each file that is missing or differs."""
    names = sorted(path.name for path in expected.glob("*.wav"))
    lines = [] if len(names) == count else [f"{len(names)} files without faults, expected {count}"]
    for name in names:
        if not (found / name).exists():
            lines.append(f"{name} is missing")
            continue
        samples, others = (soundfile.read(folder / name, dtype="float32")[0] for folder in (expected, found))
        if samples.shape != others.shape:
            lines.append(f"{name} has {len(others)} samples, expected {len(samples)}")
        elif (difference := float(np.abs(samples - others).max())) != 0:
            lines.append(f"{name} differs by {difference:.2g}")
    return lines


def main() -> int:
    """Run a batch with faults and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.batch", description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=150, help="default %(default)d")
    parser.add_argument("--kills", type=int, default=5, help="of each kind of process; default %(default)d")
    options = parser.parse_args()
    from gomin_export import pipeline

    with tempfile.TemporaryDirectory(prefix="soak-") as home:
        repository = Path(home) / "models"
        pipeline.export("gan", SHARED_GAN, repository)
        result = run(repository, Path(home), options.files, options.kills)
    print(
        f"{options.files} files in {result.seconds:.0f} s;", ", ".join(f"{n} × {f}" for f, n in result.faults.items())
    )
    for line in result.problems or ["no file is missing, none differs"]:
        print(line)
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
