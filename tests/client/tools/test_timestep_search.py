import itertools
from collections.abc import Callable

import numpy as np
import pytest

from gomin_client.sampling.base import sample
from gomin_client.sampling.ddim import DDIM
from gomin_client.sampling.ddpm import DDPM
from gomin_client.sampling.schedules import NoiseSchedule
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.tools.calibration import grid
from gomin_client.tools.timestep_search import find_timesteps, starts
from tests.client.sampling.denoisers import MEL, NOISE, clipping

START = SamplerSettings("unipc", 4, "linear")  # 49, 37, 24, 11 or so


def timesteps_of(chain: SamplerSettings) -> list[int]:
    return [int(timestep) for timestep in chain.make(50).timesteps]


def distance_to(best: list[int], asked: list[SamplerSettings]) -> Callable[[SamplerSettings], float]:
    """How many timesteps a chain is from the best one, in total."""

    def distance(chain: SamplerSettings) -> float:
        asked.append(chain)
        return float(np.abs(np.subtract(timesteps_of(chain), best)).sum())

    return distance


@pytest.mark.parametrize("best", [[49, 30, 3, 0], [40, 39, 38, 37], [3, 2, 1, 0], timesteps_of(START)])
def test_it_finds_the_timesteps_wherever_they_are(best: list[int]) -> None:
    asked: list[SamplerSettings] = []

    found = find_timesteps(START, 50, distance_to(best, asked), 500)

    assert (timesteps_of(found.chain), found.to_full_db) == (best, 0)
    assert asked[0] == found.start == START
    assert found.start_to_full_db == np.abs(np.subtract(timesteps_of(START), best)).sum()
    assert len(asked) == len(set(asked)) == found.chains
    assert (found.chain == START) == (best == timesteps_of(START))  # no explicit ones if they are evenly spaced
    assert found.chain.steps == 4


def test_the_nearest_chain_of_all_that_there_are() -> None:
    """Of a denoiser that is given other noise levels than it expects: 120 ways to choose 3 of 10 timesteps."""
    schedule = NoiseSchedule.linear(10)
    full = sample(clipping, MEL, NOISE, DDPM(schedule))

    def distance(chain: SamplerSettings) -> float:
        return float(np.abs(sample(clipping, MEL, NOISE, chain.make(10)) - full).mean())

    found = find_timesteps(SamplerSettings("ddim", 3, "linear", 0.0), 10, distance, 60)

    subsets = [subset[::-1] for subset in itertools.combinations(range(10), 3)]
    distances = [float(np.abs(sample(clipping, MEL, NOISE, DDIM(schedule, s)) - full).mean()) for s in subsets]
    assert found.to_full_db == min(distances) < found.start_to_full_db
    assert found.chain.timesteps == ",".join(map(str, subsets[int(np.argmin(distances))]))


def test_it_ends_after_a_number_of_chains() -> None:
    asked: list[SamplerSettings] = []
    distance = distance_to([40, 39, 38, 37], asked)

    found = find_timesteps(START, 50, distance, 7)

    assert found.chains == len(asked) == 7
    assert found.to_full_db == min(map(distance, asked[:7])) < found.start_to_full_db
    assert find_timesteps(SamplerSettings("ddim", 1, "linear"), 1, lambda _: 3.0, 7).chains == 1  # no other timesteps


def test_searches_start_from_evenly_spaced_timesteps_that_can_be_moved() -> None:
    chains = grid(["ddim", "fast", "unipc"], [5, 6], [0, 0.5], "linear", 50, ["49,30,20,9,2,0"])

    assert [(chain.sampler, chain.eta, chain.timesteps) for chain in starts(chains, [6])] == [
        ("ddim", 0, None),
        ("ddim", 0.5, None),
        ("unipc", None, None),
    ]
