"""make soak-dataset: one data set by three ways: python -m tests.soak.dataset.

Plain `gomin-client reconstruct`, shards in processes of their own, and Ray. Exits with 1 if a file is missing or
differs in a byte.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from tests.ray_cluster import small_ray
from tests.support import BIN, EXAMPLES, SHARED_GAN

RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000)
# extension, libsndfile's format and encoding
FORMATS = (
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "PCM_24"),
    ("wav", "WAV", "FLOAT"),
    ("flac", "FLAC", "PCM_16"),
    ("ogg", "OGG", "VORBIS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
    ("aiff", "AIFF", "PCM_16"),
)
SECONDS = (0.2, 1.0)  # of a file
FOLDERS = 5


def write_recordings(folder: Path, count: int) -> float:
    """Parts of the example recordings, in different lengths, rates, formats and numbers of channels.

    Returns:
        The duration of all, in seconds.
    """
    generator = np.random.default_rng(0)
    examples = [soundfile.read(path, dtype="float32", always_2d=True)[0] for path in EXAMPLES]
    seconds = 0.0
    for number in range(count):
        samples = examples[number % len(examples)]
        rate = RATES[number % len(RATES)]
        extension, container, encoding = FORMATS[number % len(FORMATS)]
        length = min(int(generator.uniform(*SECONDS) * rate), len(samples))
        first = int(generator.integers(0, len(samples) - length + 1))
        path = folder / f"part{number % FOLDERS}" / f"{number:03}.{extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples[first : first + length], rate, encoding, format=container)
        seconds += length / rate
    return seconds


def reconstruct(recordings: Path, made: Path, url: str, *options: str) -> subprocess.Popen[bytes]:
    """Start the client on all recordings."""
    command = [BIN / "gomin-client", "reconstruct", recordings, "-o", made, "--url", url, "--quiet", *options]
    return subprocess.Popen(command)


def reconstruct_in_shards(recordings: Path, made: Path, url: str, count: int) -> int:
    """All shards at the same time, each in a process.

    Returns:
        0 if all succeed.
    """
    shards = [reconstruct(recordings, made, url, "--shard", f"{index}/{count}") for index in range(1, count + 1)]
    return max(shard.wait() for shard in shards)


def reconstruct_in_ray(recordings: Path, made: Path, url: str, actors: int, num_cpus: float = 1.0) -> list[str]:
    """Through the Ray that this process is connected to; `num_cpus` of it for each actor.

    Returns:
        The errors of rows.
    """
    import ray

    from gomin_client.ray import Reconstructor

    rows = [
        {"path": str(path), "target": str((made / path.relative_to(recordings)).with_suffix(".wav"))}
        for path in sorted(recordings.glob("*/*"))
    ]
    results = ray.data.from_items(rows, override_num_blocks=4 * actors).map_batches(
        Reconstructor,
        fn_constructor_kwargs={"url": url, "column": "path", "target": "target"},
        batch_size=8,
        num_cpus=num_cpus,
        compute=ray.data.ActorPoolStrategy(size=actors),
    )
    return [row["error"] for row in results.iter_rows() if row["error"]]


def differences(expected: Path, found: Path, count: int) -> list[str]:
    """One line for each file that is missing, that should not exist, or that differs in a byte."""
    names, others = (
        {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()} for home in (expected, found)
    )
    lines = [] if len(names) == count else [f"{expected.name} has {len(names)} files, expected {count}"]
    lines += [f"{found.name}: {name} is missing" for name in sorted(names - others)]
    lines += [f"{found.name}: {name} should not exist" for name in sorted(others - names)]
    for name in sorted(names & others):
        if (expected / name).read_bytes() != (found / name).read_bytes():
            lines.append(f"{found.name}: {name} differs")
    return lines


def run(repository: Path, home: Path, files: int, processes: int) -> list[str]:
    """Reconstruct files in three ways, print how long each takes, and compare the outputs.

    Args:
        repository: a model repository with a GAN.
        home: an empty directory.
        files: how many.
        processes: number of shards, and of actors.

    Returns:
        One line for each problem.
    """
    url, recordings = f"local:{repository}", home / "recordings"
    seconds = write_recordings(recordings, files)
    print(f"{files} files, {seconds:.0f} s of audio")
    problems = []

    def measured(name: str, started: float) -> None:
        print(f"{name}: {time.monotonic() - started:.1f} s")

    started = time.monotonic()
    if reconstruct(recordings, home / "plain", url).wait():
        problems.append("plain: some files failed")
    measured("plain", started)
    started = time.monotonic()
    if reconstruct_in_shards(recordings, home / "shards", url, processes):
        problems.append("shards: some files failed")
    measured(f"{processes} shards", started)
    started = time.monotonic()
    with small_ray():
        measured("start of Ray", started)
        started = time.monotonic()
        problems += reconstruct_in_ray(recordings, home / "ray", url, processes, num_cpus=2 / processes)
        measured(f"{processes} actors", started)
    for made in ("shards", "ray"):
        problems += differences(home / "plain", home / made, files)
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the three ways and print their figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.dataset", description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=500, help="default %(default)d")
    parser.add_argument("--processes", type=int, default=4, help="shards, and actors; default %(default)d")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="dataset-") as home:
        repository = Path(home) / "models"
        export = [BIN / "gomin-export", "gan", "--ckpt", SHARED_GAN, "--repository", repository, "--threads", "1"]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
        problems = run(repository, Path(home), options.files, options.processes)
    for line in problems or ["all files are the same, byte for byte"]:
        print(line)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
