"""The contenders of a device, and the models that they run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gomin_client.contract.model import DENOISER_MODEL, FP16, FP32, GAN_MODEL, ModelContract
from gomin_client.contract.repository import parse, read_config
from gomin_export.networks import registry
from gomin_export.repository.config import CUDNN_SEARCHES, Deployment, config_text
from gomin_export.repository.tensorrt import TENSORRT

CUDA, CPU = "cuda", "cpu"
DEVICES = (CUDA, CPU)
MODELS = (GAN_MODEL, DENOISER_MODEL)
_SERVED = {model.name: model for known in (registry.GAN, registry.DIFFUSION) for model in known.models}
# With cuDNN and TensorRT, TF32 is also a setting of the environment; ONNX Runtime has no option for TensorRT's
_WITHOUT_TF32 = {"NVIDIA_TF32_OVERRIDE": "0"}


@dataclass(frozen=True)
class Variant:
    """One way to run a network.

    Attributes:
        name: in tables.
        precision: of the export; None for PyTorch.
        settings: of `Deployment`.
        environment: variables of its process.
    """

    name: str
    precision: str | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_tensorrt(self) -> bool:
        """Whether TensorRT runs it."""
        return self.settings.get("accelerator") == TENSORRT


_ON_CUDA = (
    Variant("PyTorch, float32", None, environment=_WITHOUT_TF32),
    Variant("CUDA, float32", FP32, {"accelerator": CUDA}, _WITHOUT_TF32),
    Variant("CUDA, TF32", FP32, {"accelerator": CUDA, "tf32": True}),
    Variant("CUDA, float16", FP16, {"accelerator": CUDA}, _WITHOUT_TF32),
    Variant("TensorRT, float32", FP32, {"accelerator": TENSORRT}, _WITHOUT_TF32),
    Variant("TensorRT, TF32", FP32, {"accelerator": TENSORRT, "tf32": True}),
    Variant("TensorRT, float16", FP16, {"accelerator": TENSORRT}, _WITHOUT_TF32),
)
_ON_CPU = (
    Variant("PyTorch, float32", None),
    Variant("CPU, float32", FP32, {"instance_kind": CPU}),
    Variant("CPU, float16 (emulated)", FP16, {"instance_kind": CPU}),
)
SEARCHES = tuple(
    Variant(f"cuDNN {search}", FP32, {"accelerator": CUDA, "cudnn_search": search}, _WITHOUT_TF32)
    for search in ("heuristic", "exhaustive", "default")
)
assert len(SEARCHES) == len(CUDNN_SEARCHES)


def variants(device: str) -> tuple[Variant, ...]:
    """All contenders of a device."""
    return _ON_CUDA if device == CUDA else _ON_CPU


def searches(device: str) -> tuple[Variant, ...]:
    """The contenders of the comparison with varying lengths: cuDNN's searches, or what the CPU has in their place."""
    return SEARCHES if device == CUDA else (_ON_CPU[1],)


def longest(frames: int, described: ModelContract, model: str) -> dict[str, int]:
    """Settings that admit requests of this length."""
    needed = max(frames, 512, 2 * described.halo_frames + 4)
    return {"tile_frames" if model == DENOISER_MODEL else "max_frames": needed}


def providers(variant: Variant, repository: Path, model: str, frames: int, engines: Path) -> list[tuple[str, Any]]:
    """ONNX Runtime's execution providers with their options, as the config.pbtxt of an export gives them to Triton.

    Args:
        variant: the contender.
        repository: of its model.
        model: its name.
        frames: mel frames of the longest request.
        engines: directory of TensorRT's engine cache.
    """
    if variant.settings.get("instance_kind") == CPU:
        return [("CPUExecutionProvider", {})]
    described = ModelContract.from_parameters(model, read_config(repository / model / "config.pbtxt"))
    settings: dict[str, Any] = {**variant.settings, **longest(frames, described, model)}
    if variant.is_tensorrt:
        settings["tensorrt_cache"] = str(engines)
    deployment = Deployment(**settings)
    config = parse(config_text(_SERVED[model], described, deployment))
    found: list[tuple[str, Any]] = []
    for entry in config.optimization.execution_accelerators.gpu_execution_accelerator:
        options = dict(entry.parameters)
        if entry.name == TENSORRT:
            options = {re.sub("^(?!trt_)", "trt_", name): value for name, value in options.items()}
            if options.pop("trt_precision_mode") == "FP16":
                options["trt_fp16_enable"] = "1"
            found.append(("TensorrtExecutionProvider", options))
        else:
            number = config.parameters["cudnn_conv_algo_search"].string_value
            search = next(name for name, value in CUDNN_SEARCHES.items() if value == number)
            found.append(("CUDAExecutionProvider", {**options, "cudnn_conv_algo_search": search.upper()}))
    return [*found, ("CPUExecutionProvider", {})]
