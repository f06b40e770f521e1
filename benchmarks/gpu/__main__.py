"""Everything that docs/performance.md says about GPUs, measured on this machine: python -m benchmarks.gpu.

Writes gpu.json and gpu.md into bench/, and updates them after each part. --device cpu runs the same program on the CPU.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.console import run, say
from benchmarks.gpu import report
from benchmarks.gpu.requirements import PARTS as SKIPPABLE
from benchmarks.gpu.requirements import PYTORCH, SERVER, TENSORRT, missing
from benchmarks.gpu.variants import CPU, CUDA, DEVICES, MODELS, Variant, providers, searches, variants
from benchmarks.gpu.worker import GpuWorker, Task
from benchmarks.models import reference_network
from benchmarks.timing import WARM_UP, compare
from gomin_client import Vocoder
from gomin_client.contract.model import FP16, FP32, GAN_MODEL, ModelContract
from gomin_client.contract.repository import read_config
from gomin_client.errors import GominError
from gomin_client.tools import load_test
from gomin_export import pipeline
from gomin_export.checkpoints import load_network
from gomin_export.networks import registry
from gomin_export.networks.served import OnnxModel
from gomin_export.onnx.forms import GraphOptions
from gomin_export.parity import gate, windows
from gomin_export.plan import ExportOptions
from gomin_export.repository.config import Deployment
from gomin_server.installation import NativeServer, find_server
from tests.support import serving

SPEED, PARITY, LENGTHS, STREAMS = "speed", "parity", "lengths", "streams"
ALL = (PARITY, SPEED, LENGTHS, STREAMS)
PACKAGES = ("onnxruntime-gpu", "torch", "tensorrt-cu13", "tensorrt-cu12", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
_ARCHITECTURES = {GAN_MODEL: registry.GAN, MODELS[1]: registry.DIFFUSION}


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        device: one of `DEVICES`.
        home: folder of models and results.
        quick: small networks, short mels and few requests.
        rounds: calls of each contender.
        seconds: duration of each load test.
        checkpoints: model → its checkpoint.
        skipped: what the machine lacks and the user leaves out.
    """

    device: str
    home: Path
    quick: bool
    rounds: int
    seconds: float
    checkpoints: dict[str, Path]
    skipped: frozenset[str]

    @property
    def variants(self) -> list[Variant]:
        """The contenders, without those left out."""
        return [variant for variant in variants(self.device) if not self._is_skipped(variant)]

    def _is_skipped(self, variant: Variant) -> bool:
        return (variant.precision is None and PYTORCH in self.skipped) or (
            variant.is_tensorrt and TENSORRT in self.skipped
        )

    def frames(self, seconds: int) -> int:
        """Mel frames of a call."""
        return (10 if seconds == 1 else 20) if self.quick else round(seconds * 24000 / 256)

    @property
    def longest(self) -> int:
        """Mel frames of the longest call."""
        return self.frames(10)

    def repository(self, precision: str) -> Path:
        """The exports of a precision."""
        return self.home / "gpu-models" / precision

    def start(self, variant: Variant, model: str) -> GpuWorker:
        """The process of a contender."""
        repository = self.repository(variant.precision or FP32)
        contract = read_config(repository / model / "config.pbtxt")
        if variant.precision is None:
            task = Task(model, str(self.checkpoints[model]), contract, [], self.device)
        else:
            engines = (self.home / "gpu-engines").resolve()
            chosen = providers(variant, repository, model, self.longest, engines)
            task = Task(model, str(repository / model / "1" / "model.onnx"), contract, chosen, self.device)
        return GpuWorker(task, variant.environment)

    @cached_property
    def networks(self) -> dict[str, Any]:
        """The reference networks."""
        return {
            model: load_network(_ARCHITECTURES[model].network_class, path) for model, path in self.checkpoints.items()
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything and write the results.

    Raises:
        SystemExit: something is missing on this machine, or a measurement failed.
    """
    plan, parts = _parse(arguments)
    lacking = missing(plan.device, plan.skipped)
    if lacking:
        say("benchmarks.gpu: this machine cannot be measured:")
        raise SystemExit("\n".join(f"- {sentence}" for sentence in lacking))
    plan.home.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": facts(plan), "quick": plan.quick, "failures": []}
    export(plan)
    measures = {SPEED: speeds, PARITY: parity, LENGTHS: lengths, STREAMS: streams}
    written: list[Path] = []
    for part in parts:
        if part == STREAMS and SERVER in plan.skipped:
            say("no server: requests in flight are not measured")
            continue
        results[part] = measures[part](plan, results["failures"])
        written = report.write(
            results, variants(plan.device), searches(plan.device), plan.home
        )  # a later part may fail
    print(written[1].read_text() if written else "nothing was measured")
    print(*written, sep="\n")
    if results["failures"]:
        raise SystemExit(1)


def command_line() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Our exports on a GPU.")
    parser.add_argument("--device", choices=DEVICES, default=CUDA, help="default cuda; cpu tests the program")
    parser.add_argument("--output", type=Path, default=Path("bench"), help="folder for models and results")
    parser.add_argument("--rounds", type=int, default=12, help="calls of each contender, 12 by default")
    parser.add_argument("--seconds", type=float, default=10, help="duration of each load test, 10 by default")
    parser.add_argument("--quick", action="store_true", help="small networks and short mels, to test the program")
    parser.add_argument("--gan-ckpt", type=Path, help="measure this GAN; default: released size, random weights")
    parser.add_argument("--diffusion-ckpt", type=Path, help="measure this diffusion model; default as for the GAN")
    parser.add_argument("--only", choices=ALL, action="append", help="measure this part only; repeatable")
    parser.add_argument(
        "--skip", choices=SKIPPABLE, action="append", default=[], help="leave out what is not installed; repeatable"
    )
    return parser


def _parse(arguments: Sequence[str] | None) -> tuple[Plan, list[str]]:
    parser = command_line()
    asked = parser.parse_args(arguments)
    if asked.rounds < 1 or asked.seconds < 0:
        parser.error("--rounds must be 1 or more, and --seconds 0 or more")
    given = {GAN_MODEL: asked.gan_ckpt, MODELS[1]: asked.diffusion_ckpt}
    home = asked.output
    checkpoints = {model: path or home / f"{model}-random.pt" for model, path in given.items()}
    plan = Plan(asked.device, home, asked.quick, asked.rounds, asked.seconds, checkpoints, frozenset(asked.skip))
    return plan, list(dict.fromkeys(asked.only or ALL))


def facts(plan: Plan) -> dict[str, str]:
    """The device, and versions."""
    found = {"gomin-triton": metadata.version("gomin-triton")}
    if plan.device == CUDA:
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        try:
            found["GPU"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
        except (OSError, subprocess.CalledProcessError, IndexError):
            found["GPU"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "of unknown name"
    else:
        from benchmarks import machine

        found["CPU"] = machine.processor()
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def export(plan: Plan) -> None:
    """Export both networks in both precisions, with the parity gate on the CPU."""
    shutil.rmtree(plan.home / "gpu-models", ignore_errors=True)  # an older export would make these version 2
    for model, path in plan.checkpoints.items():
        if path == plan.home / f"{model}-random.pt":
            torch.save(reference_network(model, plan.quick).state_dict(), path)
    for precision in (FP32, FP16):
        for model, path in plan.checkpoints.items():
            name = _ARCHITECTURES[model].name
            say(f"gomin-export {name} --precision {precision}")
            pipeline.export(name, path, plan.repository(precision), _options(plan, precision))


def _options(plan: Plan, precision: str, **settings: Any) -> ExportOptions:
    kind = {"instance_kind": CPU} if plan.device == CPU else {}
    return ExportOptions(
        graph=GraphOptions(precision), deployment=Deployment(**{**kind, **settings}), overwrite_config=True
    )


def speeds(plan: Plan, failures: list[str]) -> dict[str, Any]:
    """Time of a call."""
    found = {}
    for part, (model, seconds) in zip(report.SPEEDS, ((GAN_MODEL, 1), (GAN_MODEL, 10), (MODELS[1], 1)), strict=True):
        say(report.SPEEDS[part])
        found[part] = _compare(plan, plan.variants, model, [plan.frames(seconds)], failures)
    return found


def lengths(plan: Plan, failures: list[str]) -> dict[str, Any]:
    """Time of a call of the GAN with varying lengths."""
    first = plan.frames(1)
    sequences = {
        "new": list(range(first, first + WARM_UP + plan.rounds)),
        "alternating": [first, first + 1],
        "same": [first],
    }
    found = {}
    for part, frames in sequences.items():
        say(f"GAN, {report.LENGTHS[part]}")
        found[part] = _compare(plan, searches(plan.device), GAN_MODEL, frames, failures)
    return found


def _compare(
    plan: Plan, contenders: Sequence[Variant], model: str, frames: list[int], failures: list[str]
) -> dict[str, Any]:
    workers: dict[str, GpuWorker] = {}
    measured: dict[str, Any] = {}
    for variant in contenders:
        try:
            workers[variant.name] = plan.start(variant, model)
        except SystemExit as error:
            failures.append(f"{variant.name}, {model}: {error}")
            measured[variant.name] = report.FAILED

    def started(name: str) -> GpuWorker:
        return workers[name]

    starts = {name: partial(started, name) for name in workers}
    try:
        made = compare(starts, frames, plan.rounds, say) if starts else {}
    except SystemExit as error:
        failures.append(f"{model}, {frames[0]} frames: {error}")
        return measured | dict.fromkeys(workers, report.FAILED)
    return measured | {name: {**made[name], "operators": worker.operators} for name, worker in workers.items()}


def parity(plan: Plan, failures: list[str]) -> dict[str, Any]:
    """The parity gate on the device: all cases, and the one in windows."""
    found: dict[str, Any] = {}
    for model in MODELS:
        say(f"parity of {model}: computing the reference in float64")
        served = next(one for one in _ARCHITECTURES[model].models if one.name == model)
        assert isinstance(served, OnnxModel)
        cases = served.gate_cases(plan.networks[model], {})
        windowed = served.window_cases(plan.networks[model])
        described = ModelContract.from_parameters(model, read_config(plan.repository(FP32) / model / "config.pbtxt"))
        found[model] = {}
        for variant in plan.variants:
            say(f"  {variant.name}")
            try:
                worker = plan.start(variant, model)
                outcomes = gate.compare(worker.run, cases)
                in_windows = windows.in_windows(worker.run, described.mel.hop_length, described.halo_frames)
                outcomes += gate.compare(in_windows, windowed)
                worker.close()
            except SystemExit as error:
                failures.append(f"{variant.name}, parity of {model}: {error}")
                found[model][variant.name] = report.FAILED
                continue
            tolerance = gate.Tolerance.of(variant.precision or FP32)
            found[model][variant.name] = {
                "cases": len(outcomes),
                "passed": sum(outcome.passes(tolerance) for outcome in outcomes),
                "max_abs_error": max(outcome.max_abs_error for outcome in outcomes),
                "min_snr_db": min(outcome.snr_db for outcome in outcomes),
                "operators": worker.operators,
            }
    return found


def streams(plan: Plan, failures: list[str]) -> dict[str, Any]:
    """Requests in flight through Triton: every contender that the server here can run, with one and two instances."""
    is_native = isinstance(find_server(), NativeServer)
    found: dict[str, Any] = {}
    for variant in plan.variants:
        if variant.precision is None:
            continue
        if variant.is_tensorrt and not is_native:
            say(f"{variant.name} needs the native onnxruntime backend: requests in flight are not measured")
            continue
        for instances in report.INSTANCES[: 1 if plan.quick else None]:
            label = f"{variant.name}, {instances}"
            say(f"Triton: {label} instances")
            try:
                found[label] = _load(plan, variant, instances)
            except (AssertionError, GominError) as error:
                failures.append(f"Triton, {label} instances: {error}")
                found[label] = {str(number): report.FAILED for number in report.IN_FLIGHT}
    return found


def _load(plan: Plan, variant: Variant, instances: int) -> dict[str, Any]:
    assert variant.precision is not None
    repository = plan.repository(variant.precision)
    cache = {"tensorrt_cache": str((plan.home / "gpu-engines").resolve())} if variant.is_tensorrt else {}
    settings = {**variant.settings, **cache, "instances": instances}
    # the same recipe: nothing is exported again, and config.pbtxt gets the settings
    options = _options(plan, variant.precision, **settings)
    pipeline.export(_ARCHITECTURES[GAN_MODEL].name, plan.checkpoints[GAN_MODEL], repository, options)
    found = {}
    with (
        serving(repository, plan.home / "gpu-server.log", env=variant.environment) as server,
        Vocoder(server.grpc, "gan") as opened,
    ):
        vocoder, mel = load_test.prepare(opened, None, 0.1 if plan.quick else 1.0)
        for number in report.IN_FLIGHT:
            result = load_test.run_load(vocoder, mel, number, plan.seconds)
            if result.errors:
                raise GominError(f"{len(result.errors)} requests failed: {result.errors[0]}")
            found[str(number)] = result.to_dict()
    return found


if __name__ == "__main__":
    run(main)
