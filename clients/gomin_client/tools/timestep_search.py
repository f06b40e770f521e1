"""A search for the timesteps of a chain of few steps, whose result is nearest to that of the full chain.

The search compares results, not the denoiser's loss at each timestep, as Li et al. 2023 (AutoDiffusion) do; the dynamic
program of Watson et al. 2021 needs training data and a sum over steps. Candidates come from a compass search on whole
numbers (Kolda, Lewis & Torczon 2003, section 1.1; after Hooke & Jeeves 1961): evenly spaced timesteps first, then every
timestep moved by a stride that is halved when no move helps. Backward elimination from the full chain would take
thousands of chains, most of them long.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gomin_client.sampling import registry
from gomin_client.sampling.settings import SamplerSettings

Timesteps = tuple[int, ...]  # decreasing


@dataclass(frozen=True)
class Found:
    """The end of a search.

    Attributes:
        start: the chain with evenly spaced timesteps.
        chain: the nearest chain to the full one; `start` if none is nearer.
        start_to_full_db: distance of `start` to the full chain, in dB; see `Measurement`.
        to_full_db: distance of `chain` to the full chain.
        chains: number of chains that were compared, with `start`.
    """

    start: SamplerSettings
    chain: SamplerSettings
    start_to_full_db: float
    to_full_db: float
    chains: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "start": self.start.to_parameters(), "chain": self.chain.to_parameters()}


def starts(chains: Sequence[SamplerSettings], steps: Sequence[int]) -> list[SamplerSettings]:
    """The chains of a grid with evenly spaced timesteps, of samplers that take others, with these numbers of steps."""
    evenly_spaced = (chain for chain in chains if chain.steps in steps and chain.timesteps is None)
    return [chain for chain in evenly_spaced if registry.takes(chain.sampler or registry.DEFAULT_SAMPLER, "timesteps")]


def find_timesteps(
    start: SamplerSettings, num_diffusion_steps: int, to_full_db: Callable[[SamplerSettings], float], most: int
) -> Found:
    """Search for the timesteps of a chain.

    Args:
        start: a chain with evenly spaced timesteps.
        num_diffusion_steps: timesteps that the denoiser was trained with.
        to_full_db: distance of a chain to the full chain; called once for each chain.
        most: number of chains that are compared, `start` included.
    """
    evenly = tuple(int(timestep) for timestep in start.make(num_diffusion_steps).timesteps)
    known: dict[Timesteps, float] = {}

    def chain_of(timesteps: Timesteps) -> SamplerSettings:
        return start if timesteps == evenly else replace(start, timesteps=",".join(map(str, timesteps)))

    def distance(timesteps: Timesteps) -> float:
        if timesteps not in known:
            known[timesteps] = to_full_db(chain_of(timesteps))
        return known[timesteps]

    start_to_full_db = distance(evenly)
    stride = max(1, num_diffusion_steps // len(evenly) // 2)
    best = _compass(evenly, num_diffusion_steps, stride, distance, lambda: len(known) < most)
    return Found(start, chain_of(best), start_to_full_db, known[best], len(known))


def _compass(
    best: Timesteps, total: int, stride: int, distance: Callable[[Timesteps], float], may_continue: Callable[[], bool]
) -> Timesteps:
    """The nearest timesteps that a compass search reaches.

    Args:
        best: the first ones.
        total: timesteps that the denoiser was trained with.
        stride: of the first moves.
        distance: see `find_timesteps`, of timesteps.
        may_continue: whether one more distance may be asked for.
    """
    while stride:
        before = best
        for index, step in itertools.product(range(len(best)), (-stride, stride)):
            if not may_continue():
                return best
            moved = (*best[:index], best[index] + step, *best[index + 1 :])
            if _is_chain(moved, total) and distance(moved) < distance(best):
                best = moved
        if best == before:
            stride //= 2
    return best


def _is_chain(timesteps: Timesteps, total: int) -> bool:
    return total > timesteps[0] and timesteps[-1] >= 0 and all(a > b for a, b in itertools.pairwise(timesteps))
