"""Reconstruct a recording, or vocode a mel, over HTTP with tritonclient: GOMIN's own client is not used.

    pip install 'tritonclient[http]' numpy soundfile soxr
    python client.py URL IN OUT.wav [--model gomin_reconstruct_diffusion] [--seed N]

URL: the server, as http://localhost:8000. IN: a recording, or a mel (n_mels, frames) as .npy, which goes to gomin_gan.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

TIMEOUT_S = 600


def read_audio(path: Path, rate: int) -> np.ndarray:
    """(samples,) float32 at `rate` Hz: channels are averaged."""
    wave, file_rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(wave.mean(axis=1), file_rate, rate, quality="HQ").astype(np.float32)


def infer(client: InferenceServerClient, model: str, output: str, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """One request; tensors are sent and received as binary data."""
    inputs = []
    for name, array in tensors.items():
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    # tritonclient sends no content type, so Triton does not parse the body as a form
    result = client.infer(model, inputs, outputs=[InferRequestedOutput(output)])
    return result.as_numpy(output)


def run(options: argparse.Namespace) -> None:
    """Send the request and write its answer."""
    address = options.url.removeprefix("http://").rstrip("/")
    is_mel = options.input.suffix == ".npy"
    model = "gomin_gan" if is_mel else options.model
    with InferenceServerClient(address, connection_timeout=TIMEOUT_S, network_timeout=TIMEOUT_S) as client:
        parameters: dict[str, Any] = client.get_model_config(model)["parameters"]
        rate = int(parameters["gomin.sample_rate"]["string_value"])
        if is_mel:
            mel = np.load(options.input).astype(np.float32)
            audio = infer(client, model, "audio", {"mel": mel[np.newaxis]})[0, 0]
        else:
            wave = read_audio(options.input, rate)
            tensors = {"audio": wave[np.newaxis, np.newaxis]}  # (batch, channels, samples)
            if "diffusion" in model:
                tensors["seed"] = np.array([[options.seed]], np.uint64)
            # whole frames come back: cut off what lies beyond the recording's end
            audio = infer(client, model, "reconstruction", tensors)[0, 0, : len(wave)]
    # beside the output, so that it gets its name only when it is complete
    part = options.output.with_name(f"{options.output.name}.{os.getpid()}.part")
    try:
        soundfile.write(part, audio, rate, subtype="FLOAT", format="WAV")
        part.replace(options.output)
    finally:
        part.unlink(missing_ok=True)


def main() -> int:
    """Exit status: 1 if the server or a file is at fault."""
    parser = argparse.ArgumentParser(description="Reconstruct a recording, or vocode a mel (.npy).")
    parser.add_argument("url", help="as http://localhost:8000")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="gomin_reconstruct", help="takes audio; default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of a diffusion model; default %(default)s")
    options = parser.parse_args()
    try:
        if not options.input.exists():
            raise FileNotFoundError(f"{options.input}: no such file")
        run(options)
    except (ConnectionError, TimeoutError, socket.gaierror) as error:
        print(f"client.py: {options.url}: {error}. Is the server running, with HTTP on this port?", file=sys.stderr)
        return 1
    except (InferenceServerException, OSError, ValueError, soundfile.SoundFileError) as error:
        print(f"client.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
