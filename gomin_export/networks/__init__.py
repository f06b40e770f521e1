"""PyTorch reference networks, one per file, with the parameter names of GOMIN checkpoints.

The classes are imported on first use, so that `registry` can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gomin_export.networks.diffusion import DiffusionConfig, DiffusionWrapper, GomiDiff
    from gomin_export.networks.gan import GANConfig, GomiGAN

__all__ = ["DiffusionConfig", "DiffusionWrapper", "GANConfig", "GomiDiff", "GomiGAN"]

_MODULES = {
    "DiffusionConfig": "diffusion",
    "DiffusionWrapper": "diffusion",
    "GANConfig": "gan",
    "GomiDiff": "diffusion",
    "GomiGAN": "gan",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
