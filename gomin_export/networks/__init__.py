"""PyTorch reference networks, one a file, with the parameter names that GOMIN checkpoints have."""

from gomin_export.networks.diffusion import DiffusionConfig, DiffusionWrapper, GomiDiff
from gomin_export.networks.gan import GANConfig, GomiGAN

__all__ = ["DiffusionConfig", "DiffusionWrapper", "GANConfig", "GomiDiff", "GomiGAN"]
