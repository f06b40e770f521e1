"""Exact rewrites of the networks, made for export only: the same function in fewer and cheaper operators.

Exact means equal in real arithmetic for every input, length and edge; tests hold each form to its original within 1e-12
in float64. To add a rewrite: a module here, and its use in `gan.py` or `diffusion.py`. The reference networks are not
touched.
"""

from gomin_export.lowering.diffusion import LoweredDenoiser
from gomin_export.lowering.gan import LoweredGAN

__all__ = ["LoweredDenoiser", "LoweredGAN"]
