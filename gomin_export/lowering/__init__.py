"""Exact rewrites of the networks for export: the same function with fewer and cheaper operators.

Exact means equal in real arithmetic for every input and length, including the edges; tests compare each form with its
original within 1e-12 in float64. A new rewrite is a module here that `gan.py` or `diffusion.py` uses. The reference
networks are not changed.
"""

from gomin_export.lowering.diffusion import LoweredDenoiser
from gomin_export.lowering.gan import LoweredGAN

__all__ = ["LoweredDenoiser", "LoweredGAN"]
