"""Values of options, without torch, so that the command line starts at once."""

from __future__ import annotations

CPU = "cpu"
NATIVE = "native"  # the graph for CPUs with operators of our own library
TARGETS = ("any", CPU, NATIVE)  # hardware that a GAN runs on; the first is the default
