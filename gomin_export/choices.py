"""Names that options list and graphs are made by, without torch, so that the command line starts at once."""

from __future__ import annotations

CPU = "cpu"
TARGETS = ("any", CPU)  # where a GAN is to run; the first is the default
