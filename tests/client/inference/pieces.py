"""Cutting arrays into blocks."""

from __future__ import annotations

import itertools


def pieces(total: int, sizes: list[int]) -> list[tuple[int, int]]:
    """Cut 0 … total into pieces of the given sizes, repeated."""
    edges = [0]
    for size in itertools.cycle(sizes):
        if edges[-1] >= total:
            return list(itertools.pairwise(edges))
        edges.append(min(total, edges[-1] + size))
    raise AssertionError
