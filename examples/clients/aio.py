"""Reconstruct a recording of any length over gRPC, in windows, several of them in flight: tritonclient and asyncio.

    pip install 'tritonclient[grpc]' numpy soundfile soxr
    python aio.py URL IN OUT.wav [--in-flight N]

URL: the server, as localhost:8001. The joined windows equal the reconstruction of the whole: see docs/http.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

MODEL = "gomin_reconstruct"
WINDOW = 512  # frames that a window adds to the result
TIMEOUT_S = 600


def windows(frames: int, reach: int) -> Iterator[tuple[int, int, int]]:
    """Frames of each window: the first and the end of what is sent, and the first of what is kept.

    What is kept ends where the next window's part begins. Frames that are sent may lie beyond the recording's end.
    """
    for kept in range(0, frames, WINDOW):
        yield max(0, kept - reach), kept + WINDOW + reach, kept


async def reconstruct(client: InferenceServerClient, wave: np.ndarray, settings: dict[str, int], most: int) -> bytes:
    """(samples,) → as many float32 samples, as bytes; at most `most` requests are in flight."""
    hop = settings["hop_length"]
    # the network's halo, and the samples that the mel of a frame depends on
    reach = settings["halo_frames"] + -(-settings["n_fft"] // 2 // hop)
    free = asyncio.Semaphore(most)

    async def one(first: int, end: int, kept: int) -> bytes:
        part = wave[np.newaxis, np.newaxis, first * hop : end * hop]  # (batch, channels, samples)
        async with free:
            tensor = InferInput("audio", list(part.shape), "FP32")
            tensor.set_data_from_numpy(part)
            result = await client.infer(MODEL, [tensor], client_timeout=TIMEOUT_S)
        audio = result.as_numpy("reconstruction")[0, 0]
        return audio[(kept - first) * hop : (kept - first + WINDOW) * hop].tobytes()

    parts = await asyncio.gather(*(one(*window) for window in windows(1 + len(wave) // hop, reach)))
    return b"".join(parts)[: wave.nbytes]


async def run(options: argparse.Namespace) -> None:
    """Send the windows and write the joined answers."""
    async with InferenceServerClient(options.url.removeprefix("grpc://")) as client:
        try:
            answer = await client.get_model_config(MODEL, as_json=True, client_timeout=TIMEOUT_S)
        except InferenceServerException as error:
            # this call does not wait in a queue, so the server is not just busy
            if error.status() != "StatusCode.UNAVAILABLE":
                raise
            reason = f"{error.message()}. Is the server running, with gRPC on this port?"
            raise ConnectionError(f"{options.url}: {reason}") from error
        parameters = answer["config"]["parameters"]
        names = ("sample_rate", "hop_length", "n_fft", "halo_frames")
        settings = {name: int(parameters[f"gomin.{name}"]["string_value"]) for name in names}
        rate = settings["sample_rate"]
        wave, file_rate = soundfile.read(options.input, dtype="float32", always_2d=True)
        wave = soxr.resample(wave.mean(axis=1), file_rate, rate, quality="HQ").astype(np.float32)
        audio = await reconstruct(client, wave, settings, options.in_flight)
    # beside the output, so that it gets its name only when it is complete
    part = options.output.with_name(f"{options.output.name}.{os.getpid()}.part")
    try:
        soundfile.write(part, np.frombuffer(audio, np.float32), rate, subtype="FLOAT", format="WAV")
        part.replace(options.output)
    finally:
        part.unlink(missing_ok=True)


def main() -> int:
    """Exit status: 1 if the server or a file is at fault."""
    parser = argparse.ArgumentParser(description="Reconstruct a recording of any length.")
    parser.add_argument("url", help="as localhost:8001")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--in-flight", type=int, default=4, help="requests at the same time; default %(default)s")
    options = parser.parse_args()
    if options.in_flight < 1:
        parser.error("--in-flight: expected at least 1")
    try:
        if not options.input.exists():
            raise FileNotFoundError(f"{options.input}: no such file")
        asyncio.run(run(options))
    except (InferenceServerException, OSError, ValueError, soundfile.SoundFileError) as error:
        print(f"aio.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
