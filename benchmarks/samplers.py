"""Cost of each diffusion sampler: python -m benchmarks.samplers.

One second of audio from the golden denoiser (random weights, 0.55 million parameters: it shows cost, not quality), in
rounds that interleave the samplers, through a real Triton server. Prints a table: denoiser steps, halo, median seconds
and their ratio to the released chain's.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from gomin_client import Vocoder
from tests.support import GOLDEN, run, serving

CHAINS: dict[str, dict[str, Any]] = {
    "ddpm": {"sampler": "ddpm"},
    "ddim, 25 steps": {"sampler": "ddim", "steps": 25},
    "dpm++sde, 25 steps": {"sampler": "dpm++sde", "steps": 25},
    "dpm++, 20 steps": {"sampler": "dpm++", "steps": 20},
    "ddim, 10 steps": {"sampler": "ddim", "steps": 10},
    "dpm++, 10 steps": {"sampler": "dpm++", "steps": 10},
    "unipc, 10 steps": {"sampler": "unipc", "steps": 10},
    "fast": {"sampler": "fast"},
}
ROUNDS = 5


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        checkpoint = GOLDEN / "diffusion_small.pt"
        exported = run("gomin-export", "diffusion", "--ckpt", checkpoint, "--repository", home / "models")
        if exported.returncode:
            raise SystemExit(exported.stderr)
        with serving(home / "models", home / "log") as server:
            vocoders = {name: Vocoder(server.grpc, "diffusion", **chain) for name, chain in CHAINS.items()}
            mel = np.full((32, 94), 0.5, np.float32)
            seconds: dict[str, list[float]] = {name: [] for name in CHAINS}
            for turn in range(ROUNDS + 1):
                for chain, vocoder in vocoders.items():
                    started = time.perf_counter()
                    vocoder.synthesize(mel, seed=turn)
                    if turn:  # the first round warms up
                        seconds[chain].append(time.perf_counter() - started)
        whole = statistics.median(seconds["ddpm"])
        print("| sampler | steps | halo, frames | s | time relative to ddpm |")
        print("|---|---|---|---|---|")
        for chain, vocoder in vocoders.items():
            median = statistics.median(seconds[chain])
            steps = vocoder.sampling.steps if vocoder.sampling is not None else None
            print(f"| {chain} | {steps} | {vocoder.chain_halo_frames} | {median:.2f} | {100 * median / whole:.0f} % |")
            vocoder.close()


if __name__ == "__main__":
    main()
