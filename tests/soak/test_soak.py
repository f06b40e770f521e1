"""The soak itself: it passes on a short run, and notices what it looks for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.soak import resources
from tests.soak.load import Case, Load
from tests.soak.resources import Sample
from tests.soak.soak import FAULTS, Settings, halves, soak

FLAT = Sample(100, 10, 20, 1000, 30, 40, 64)


@pytest.mark.server
@pytest.mark.slow
def test_some_seconds(vocoder_repository: Path, tmp_path: Path) -> None:
    result = soak(vocoder_repository, tmp_path, Settings(seconds=0, round_s=0.3, pause_s=0.1), print)

    assert result.problems == []
    assert result.faults == dict.fromkeys(FAULTS, 1)
    assert result.counts.outcomes["answered"] > 0


def test_what_grows_is_noticed() -> None:
    assert resources.growth(FLAT, FLAT) == []
    assert resources.growth(FLAT, replace(FLAT, server_memory=1300, client_threads=15)) == [
        "client threads grew from 10 to 15",
        "server memory grew from 1000 to 1300",
    ]
    assert resources.growth(replace(FLAT, shared_memory=128), FLAT) == []


def test_halves_do_not_overlap() -> None:
    samples = [replace(FLAT, server_threads=count) for count in (1, 2, 100, 7, 8)]

    assert [half.server_threads for half in halves(samples)] == [1.5, 7.5]


def test_wrong_answers_are_noticed() -> None:
    wave = np.zeros(512, np.float32)
    case = Case("gan", np.zeros((128, 2), np.float32), wave)
    load = Load([case], [])

    load._compare(case, wave)
    load._compare(case, wave[:256], "ended early")
    assert load.counts.faults == []

    for wrong in (wave + 1e-3, wave[:256], np.full_like(wave, np.nan)):
        load._compare(case, wrong)
    assert load.counts.faults == [
        "gan, 2 frames: wrong by 0.001",
        "gan, 2 frames: shape (256,), expected (512,)",
        "gan, 2 frames: wrong by nan",
    ]
