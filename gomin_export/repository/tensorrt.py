"""TensorRT's parameters in config.pbtxt: the shapes of its engine, its precision, and its cache of engines.

Written from documentation, not measured: the README of github.com/triton-inference-server/onnxruntime_backend, whose
branches have the profile parameters since r24.04, and ONNX Runtime's page on its TensorRT execution provider.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gomin_client.contract import model as contract
from gomin_client.contract.model import ModelContract
from gomin_client.contract.signatures import SIGNATURES
from gomin_client.errors import UsageError

if TYPE_CHECKING:
    from gomin_export.repository.config import Deployment

TENSORRT = "tensorrt"  # the accelerator
FRAMES = 512  # of the longest request, and of the shape that kernels are chosen for: a window of the client
OPT_BATCH = 4
# ONNX Runtime makes this directory, but not its parents. Not in /tmp: an engine is code, and others can write there
CACHE = "/var/cache/gomin_tensorrt"


def parameters(described: ModelContract, deployment: Deployment, frames: int) -> dict[str, str]:
    """Parameters of the accelerator.

    A request of one item and one frame is the smallest shape; the largest batch of `frames` frames is the largest.
    TensorRT refuses all shapes beyond it.

    Args:
        described: the model's contract, of kind "gan" or "denoiser".
        deployment: the other settings.
        frames: number of mel frames of the longest request.

    Raises:
        UsageError: the shape that kernels are chosen for is larger than the largest one.
    """
    largest = (deployment.batch, frames)
    opt = deployment.tensorrt_opt or (min(OPT_BATCH, largest[0]), min(FRAMES, frames))
    if opt[0] > largest[0] or opt[1] > largest[1]:
        bound = "--tile-frames" if described.kind == contract.DENOISER else "--max-frames"
        raise UsageError(
            f"--tensorrt-opt {opt[0]}x{opt[1]}: the largest shape is {largest[0]}x{largest[1]}; "
            f"see --max-batch-size and {bound}"
        )
    return {
        # No flag for float16: TensorRT then takes the number format of every operator from the graph. With FP16 it
        # could choose float16 for any operator, sines too (NVIDIA/TensorRT#4125).
        "precision_mode": "FP32",
        "trt_profile_min_shapes": _shapes(described, 1, 1),
        "trt_profile_opt_shapes": _shapes(described, *opt),
        "trt_profile_max_shapes": _shapes(described, *largest),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": deployment.tensorrt_cache or CACHE,
    }


def _shapes(described: ModelContract, batch: int, frames: int) -> str:
    """name:SIZExSIZE…, of every input, since all have a dynamic batch axis."""
    inputs = {tensor.name: tensor.sizes(described, frames) for tensor in SIGNATURES[described.kind].inputs}
    return ",".join(f"{name}:{'x'.join(map(str, (batch, *sizes)))}" for name, sizes in inputs.items())
