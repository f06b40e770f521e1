"""The bound on the length of a request, gomin.max_frames: by default what a fixed amount of memory holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gomin_client.contract import model as contract
from gomin_client.contract.model import ModelContract
from gomin_client.errors import UsageError
from gomin_client.mel.features import MelConfig
from gomin_client.sampling.tiling import TILE_FRAMES
from gomin_export.networks.served import MEMORY_BUDGET, EnsembleModel, front_end_bytes_per_frame
from gomin_export.repository.tensorrt import FRAMES, TENSORRT

SMALLEST = 17  # frames of the longest of the gate's cases that are not cut into windows
SMALLEST_KEPT = 4  # frames that a window keeps, besides its halos

if TYPE_CHECKING:
    from gomin_export.networks.served import ServedModel
    from gomin_export.repository.config import Deployment


def tile_frames(described: ModelContract, deployment: Deployment) -> int:
    """Largest number of frames in one denoiser call of a chain."""
    return deployment.tile_frames or max(TILE_FRAMES, 8 * described.halo_frames)


def front_end_frames(config: MelConfig) -> int:
    """The bound of a mel front end, which its ONNX file has too."""
    return max(1, MEMORY_BUDGET // front_end_bytes_per_frame(config))


def max_frames(model: ServedModel, described: ModelContract, deployment: Deployment) -> int | None:
    """The bound of a model in its config.pbtxt; None for no bound.

    The number that the user gives is for the models that clients call. A denoiser's bound always allows two calls of a
    chain, which its batcher may combine. With TensorRT, the bound is also the number of frames of the largest shape:
    every call has a shape up to this one.

    Raises:
        UsageError: the bound is too small for the windows of the parity gate and of clients, or a warm-up request
            exceeds it.
    """
    if isinstance(model, EnsembleModel):
        most = max_frames(model.vocoder, described, deployment)
        own = front_end_frames(described.mel)
        return own if most is None else min(own, most)
    smallest = max(SMALLEST, 2 * described.halo_frames + SMALLEST_KEPT)
    default = described.max_frames
    if deployment.accelerator == TENSORRT and model.has_weights:
        default = min(FRAMES, default or FRAMES)
    if model.kind == contract.DENOISER and deployment.accelerator == TENSORRT:
        bound: int | None = tile_frames(described, deployment)  # of each item, and of all items of a chain's request
    elif model.kind == contract.DENOISER:
        bound = described.max_frames and max(described.max_frames, 2 * tile_frames(described, deployment))
    elif deployment.max_frames is None:
        bound = default and max(default, smallest)
    elif deployment.max_frames < smallest:
        raise UsageError(
            f"--max-frames {deployment.max_frames}: {model.name} has a halo of {described.halo_frames} frames; "
            f"expected at least {smallest}"
        )
    else:
        bound = deployment.max_frames
    if bound is not None and model.has_weights:
        for batch, frames in deployment.warm_up or ():
            if batch * frames > bound:
                raise UsageError(
                    f"--warm-up {batch}x{frames}: {model.name} takes at most {bound} frames in one request, all items "
                    "together: see --max-frames"
                )
    return bound
