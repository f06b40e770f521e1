"""Memory, first sound and speed of recordings of any length: python -m benchmarks.streaming [MINUTES …].

Reconstructs recordings of 1, 10 and 60 minutes with the demo model, in-process and through a real Triton server, each
in a separate process, and prints a table: peak memory of the client and of the server, seconds to the first sample
of audio (`--stream`), and speed. Takes about ten minutes on two cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soundfile

from benchmarks.machine import peak_of_server
from gomin_client.files import audio
from gomin_client.mel import resampling
from tests.support import BIN, EXAMPLES, SHARED_GAN, RunningServer, run, serving

CLIENT = BIN / "gomin-client"


def recording(path: Path, minutes: float) -> None:
    """Write a recording of this length: the examples, repeated, at 24 kHz."""
    waves = [resampling.resample(read.mono()[0], read.rate, 24000) for read in map(audio.read, EXAMPLES)]
    left = int(minutes * 60 * 24000)
    with soundfile.SoundFile(path, "w", 24000, 1, "PCM_16") as file:
        while left > 0:
            for wave in waves:
                file.write(wave[:left])
                left -= min(left, len(wave))


def timed(*arguments: str | Path) -> tuple[float, float]:
    """Run the client; returns its seconds and its peak MiB."""
    started = time.perf_counter()
    process = subprocess.Popen([CLIENT, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the client failed with {status}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def first_sound(source: Path, url: str) -> float:
    """Seconds from the start of the program to the first sample on its standard output."""
    options = ["--stream", "--format", "raw", "--quiet", "--url", url]
    command: list[str | Path] = [CLIENT, "reconstruct", source, "-o", "-", *options]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.read(2)
    elapsed = time.perf_counter() - started
    process.kill()
    process.wait()
    return elapsed


def main() -> None:
    """Measure and print."""
    lengths = [float(word) for word in sys.argv[1:]] or [1.0, 10.0, 60.0]
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        exported = run("gomin-export", "gan", "--ckpt", SHARED_GAN, "--repository", home / "models")
        if exported.returncode:
            raise SystemExit(exported.stderr)
        print("| | minutes | client, peak MiB | server, peak MiB | first sound, s | × real time |")
        print("|---|---|---|---|---|---|")
        for where in ("in-process", "gRPC"):
            for minutes in lengths:
                source = home / "in.wav"
                recording(source, minutes)
                if where == "in-process":
                    row = measure(source, home, f"local:{home / 'models'}", None)
                else:
                    # a fresh server for each, so that each length has its own peak
                    with serving(home / "models", home / "log") as server:
                        row = measure(source, home, server.grpc, server)
                peak, server_peak, sound, elapsed = row
                speed = 60 * minutes / elapsed
                print(f"| {where} | {minutes:g} | {peak:.0f} | {server_peak} | {sound:.2f} | {speed:.1f} |", flush=True)


def measure(source: Path, home: Path, url: str, server: RunningServer | None) -> tuple[float, str, float, float]:
    """Peak of the client in MiB, peak of the server, seconds to the first sound, total seconds."""
    sound = min(first_sound(source, url) for _ in range(3))
    elapsed, peak = timed("reconstruct", source, "-o", home / "out.wav", "--quiet", "--url", url)
    return peak, "" if server is None else f"{peak_of_server(server) * 1e6 / 2**20:.0f}", sound, elapsed


if __name__ == "__main__":
    main()
