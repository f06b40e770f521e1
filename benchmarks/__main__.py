"""make bench: our export against its peers on this machine, interleaved in one run.

Writes results.json, results.md and results.png into bench/, and updates them after each part.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import THREADS, machine, report
from benchmarks.console import run, say
from benchmarks.models import STEPS, Models, build
from benchmarks.timing import compare
from benchmarks.worker import Worker
from gomin_client.contract.model import DENOISER_MODEL, DIFFUSION_MODEL, GAN_MODEL
from gomin_export.choices import NATIVE, TARGETS
from tests.support import serving

SECOND, TEN_SECONDS = 94, 938  # mel frames
CHAIN_FRAMES = 24  # of a whole chain, 50 steps of which take long
LOWERINGS = "lowerings"
CHAIN = "chain"
NOT_IN_CHART = (CHAIN, LOWERINGS)  # not compared with PyTorch
ALL = ("gan-1s", "gan-10s", "denoiser", CHAIN, LOWERINGS)

Contenders = dict[str, Callable[[], Worker]]


def main() -> None:
    """Measure everything and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Our export against its peers.")
    parser.add_argument(
        "--output", type=Path, default=Path("bench"), help="folder for models and results; default bench"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=12,
        help="rounds of one second of audio, 12 by default; half as many of ten, a quarter of whole chains",
    )
    parser.add_argument(
        "--only", choices=ALL, action="append", help="measure this part only; may be given several times"
    )
    parser.add_argument("--quick", action="store_true", help="small networks and short mels, to test the program")
    asked = parser.parse_args()
    if asked.rounds < 1:
        parser.error(f"--rounds {asked.rounds}: expected 1 or more")
    try:
        asked.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output {asked.output}: {error.strerror}")
    os.sched_setaffinity(0, machine.cores(THREADS))  # the contenders and the server inherit it
    models = Models(asked.output / "models", asked.quick)
    build(models, say)
    found = machine.facts()
    second, ten = (10, 20) if asked.quick else (SECOND, TEN_SECONDS)
    long_rounds = -(-asked.rounds // 2)
    with ExitStack() as stack:
        server = stack.enter_context(serving(models.repository("cpu"), asked.output / "server.log"))
        gan = gan_contenders(models, server.grpc, server.http)
        denoiser = denoiser_contenders(models, server.grpc, server.http)
        chain = chain_contenders(models, server.grpc)
        if NATIVE in models.targets:
            own = stack.enter_context(serving(models.repository(NATIVE), asked.output / "server_native.log"))
            gan |= native_contenders(models, own.grpc, GAN_MODEL)
            denoiser |= native_contenders(models, own.grpc, DENOISER_MODEL)
            chain |= native_contenders(models, own.grpc, DIFFUSION_MODEL)
        else:
            say("the operator library is not installed: --target native is skipped")
        planned = {
            "gan-1s": ("GAN, 1 s of audio", GAN_MODEL, gan, second, asked.rounds),
            "gan-10s": ("GAN, 10 s of audio", GAN_MODEL, gan, ten, long_rounds),
            "denoiser": ("One step of the denoiser, 1 s of audio", DENOISER_MODEL, denoiser, second, asked.rounds),
            CHAIN: (
                f"A chain of {STEPS} steps, {CHAIN_FRAMES} mel frames (0.26 s of audio)",
                DIFFUSION_MODEL,
                chain,
                CHAIN_FRAMES,
                -(-asked.rounds // 4),
            ),
            LOWERINGS: (
                "GAN, 1 s of audio: the lowerings",
                GAN_MODEL,
                lowered_contenders(models),
                second,
                asked.rounds,
            ),
        }
        results: dict[str, Any] = {"machine": found, "quick": asked.quick, "comparisons": []}
        for part in dict.fromkeys(asked.only or ALL):
            results["comparisons"].append(measure(models, *planned[part], in_chart=part not in NOT_IN_CHART))
            if part != LOWERINGS:  # measured without the server
                results["server_peak_mb"] = machine.peak_of_server(server)
            written = report.write(results, asked.output)  # a later part may fail
    print(report.table(results))
    print(*written, sep="\n")


def gan_contenders(models: Models, grpc: str, http: str) -> Contenders:
    """Everything that runs the GAN. The others are compared with the first."""
    worker = partial(Worker, model=GAN_MODEL, quick=models.quick)
    return {
        "PyTorch": partial(worker, "eager", str(models.home)),
        "torch.compile": partial(worker, "compile", str(models.home)),
        "torch.onnx.export, ONNX Runtime": partial(worker, "onnxruntime", str(models.plain(GAN_MODEL))),
        **peers(models, GAN_MODEL),
        "gomin-triton, --target any, in-process": partial(worker, "transport", f"local:{models.repository('any')}"),
        "gomin-triton, --target cpu, in-process": partial(worker, "transport", f"local:{models.repository('cpu')}"),
        "gomin-triton, --target cpu, gRPC": partial(worker, "transport", grpc),
        "gomin-triton, --target cpu, HTTP": partial(worker, "transport", http),
    }


def native_contenders(models: Models, grpc: str, model: str) -> Contenders:
    """A model with our own operators."""
    worker = partial(Worker, model=model, quick=models.quick)
    return {
        "gomin-triton, --target native, in-process": partial(worker, "transport", f"local:{models.repository(NATIVE)}"),
        "gomin-triton, --target native, gRPC": partial(worker, "transport", grpc),
    }


def denoiser_contenders(models: Models, grpc: str, http: str) -> Contenders:
    """The same for one step of the denoiser."""
    worker = partial(Worker, model=DENOISER_MODEL, quick=models.quick)
    denoiser = models.denoisers[TARGETS[0]]
    return {
        "PyTorch": partial(worker, "eager", str(models.home)),
        "torch.compile": partial(worker, "compile", str(models.home)),
        "torch.onnx.export, ONNX Runtime": partial(worker, "onnxruntime", str(models.plain(DENOISER_MODEL))),
        **peers(models, DENOISER_MODEL),
        "gomin-triton, --target any, in-process": partial(worker, "transport", f"local:{denoiser}"),
        "gomin-triton, --target any, gRPC": partial(worker, "transport", grpc),
        "gomin-triton, --target any, HTTP": partial(worker, "transport", http),
    }


def chain_contenders(models: Models, grpc: str) -> Contenders:
    """The released chain, with noise, tiles and samplers."""
    worker = partial(Worker, model=DIFFUSION_MODEL, quick=models.quick)
    return {
        "gomin-triton, --target any, in-process": partial(worker, "transport", f"local:{models.denoisers[TARGETS[0]]}"),
        "gomin-triton, --target any, gRPC": partial(worker, "transport", grpc),
    }


def peers(models: Models, model: str) -> Contenders:
    """Contenders from optional packages."""
    try:
        import openvino  # noqa: F401
    except ModuleNotFoundError:
        say("OpenVINO is not installed: skipped")
        return {}
    return {"torch.onnx.export, OpenVINO": partial(Worker, "openvino", str(models.plain(model)), model, models.quick)}


def lowered_contenders(models: Models) -> Contenders:
    """The plain export, then one more lowering each time, all in the same ONNX Runtime."""
    worker = partial(Worker, "onnxruntime", model=GAN_MODEL, quick=models.quick)
    files = {target: models.repository(target) / GAN_MODEL / "1" / "model.onnx" for target in ("any", "cpu")}
    return {
        "plain": partial(worker, str(models.plain(GAN_MODEL))),
        "polyphase activations": partial(worker, str(models.polyphase)),
        "and factors folded (--target any)": partial(worker, str(files["any"])),
        "and Winograd convolutions (--target cpu)": partial(worker, str(files["cpu"])),
        **_with_operators(models),
    }


def _with_operators(models: Models) -> Contenders:
    if NATIVE not in models.targets:
        return {}
    name = f"and custom operators (--target {NATIVE})"
    return {name: partial(Worker, "transport", f"local:{models.repository(NATIVE)}", GAN_MODEL, models.quick)}


def measure(
    models: Models, title: str, model: str, contenders: Contenders, frames: int, rounds: int, *, in_chart: bool
) -> dict[str, Any]:
    """One comparison, for results.json."""
    say(title)
    return {
        "title": title,
        "frames": frames,
        "gflop": models.gflop(model, frames),
        "in_chart": in_chart,
        "contenders": compare(contenders, (frames,), rounds, say),
    }


if __name__ == "__main__":
    run(main)
