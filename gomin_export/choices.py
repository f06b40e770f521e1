"""Values of options, without torch, so that the command line starts at once."""

from __future__ import annotations

CPU = "cpu"
TARGETS = ("any", CPU)  # hardware that a GAN runs on; the first is the default
