import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gomin_client.errors import FileError, UsageError
from gomin_client.mel.features import MelConfig, Wave
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.tools.calibration import (
    Measurement,
    ResultsFile,
    fastest_enough,
    grid,
    measure,
    shortest_within,
    summarize,
)

ABOUT = {"model": "gomin_diffusion", "version": 1, "seed": 0}
FULL = SamplerSettings("ddpm", 50, "linear")


def measurement(sampler: str, steps: int, elapsed_s: float, to_full_db: float, eta: float | None = None) -> Measurement:
    return Measurement(SamplerSettings(sampler, steps, "linear", eta), "a", 1.0, elapsed_s, 4.0, 1.0, to_full_db)


MEASURED = [
    measurement("ddpm", 50, 2.0, 0.0),
    measurement("unipc", 10, 0.4, 0.3),
    measurement("ddim", 10, 0.4, 0.3),
    measurement("ddim", 20, 0.8, 0.15),
    measurement("ddim", 25, 1.0, 0.18),
    measurement("fast", 6, 0.2, 1.0),
]


class TestGrid:
    def test_the_full_chain_is_first_and_samplers_take_what_they_can(self) -> None:
        chains = grid(["ddim", "fast", "unipc", "ddpm"], [5, 10], [0.5], 50)

        assert [(chain.sampler, chain.steps, chain.eta) for chain in chains] == [
            ("ddpm", 50, None),
            ("ddim", 5, None),
            ("ddim", 5, 0.5),
            ("ddim", 10, None),
            ("ddim", 10, 0.5),
            ("fast", 6, None),
            ("unipc", 5, None),
            ("unipc", 10, None),
        ]

    @pytest.mark.parametrize(
        ("samplers", "steps", "etas", "words"),
        [
            (["euler"], [5], [], "sampler 'euler': expected"),
            (["ddim"], [5, 51], [], "steps 51: no sampler of the grid takes it: steps 51: expected 1 to 50"),
            (["unipc"], [5], [0.5], "eta 0.5: no sampler of the grid takes it: eta 0.5: only sampler ddim"),
        ],
    )
    def test_values_that_no_sampler_takes(
        self, samplers: list[str], steps: list[int], etas: list[float], words: str
    ) -> None:
        with pytest.raises(UsageError, match=words):
            grid(samplers, steps, etas, 50)


class TestChoices:
    def test_the_nearest_of_those_that_are_fast_enough(self) -> None:
        assert fastest_enough(summarize(MEASURED), 1.2).chain == SamplerSettings("ddim", 20, "linear")
        assert fastest_enough(summarize(MEASURED), 0.1).chain == FULL

    def test_equal_ones_are_told_apart_by_name_in_any_order(self) -> None:
        for measured in (MEASURED, MEASURED[::-1]):
            assert fastest_enough(summarize(measured), 2).chain == SamplerSettings("ddim", 10, "linear")

    def test_no_chain_is_fast_enough(self) -> None:
        with pytest.raises(UsageError, match=r"--rtf-target 9: no chain is that fast; fast, 6 steps makes 5\.00"):
            fastest_enough(summarize(MEASURED), 9)

    @pytest.mark.parametrize(("share", "steps"), [(0.0, 50), (0.04, 20), (0.05, 20), (0.08, 10), (1.0, 6)])
    def test_the_fewest_steps_within_a_share_whatever_their_time(self, share: float, steps: int) -> None:
        assert shortest_within(summarize(MEASURED), share).chain.steps == steps

    def test_which_are_optimal(self) -> None:
        optimal = [(one.chain.sampler, one.chain.steps) for one in summarize(MEASURED) if one.is_optimal]

        assert optimal == [("fast", 6), ("ddim", 10), ("unipc", 10), ("ddim", 20), ("ddpm", 50)]


class TestMeasuring:
    @pytest.fixture
    def recording(self, tmp_path: Path) -> Path:
        soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 12000), 24000)
        return tmp_path / "a.wav"

    def reconstruct(self, calls: list[SamplerSettings]) -> Callable[[Wave, SamplerSettings], tuple[Wave, float]]:
        def make(wave: Wave, chain: SamplerSettings) -> tuple[Wave, float]:
            """More steps are louder."""
            calls.append(chain)
            return wave * np.float32((chain.steps or 0) / 60), 0.01 * (chain.steps or 0)

        return make

    def test_what_was_measured_is_not_measured_again(self, recording: Path, tmp_path: Path) -> None:
        chains = grid(["ddim"], [5, 10], [], 50)
        calls: list[SamplerSettings] = []
        path = tmp_path / "results.jsonl"
        running = measure([("a", recording)], chains, MelConfig(), self.reconstruct(calls), ResultsFile(path, ABOUT))
        next(running)
        next(running)
        running.close()  # interrupted

        resumed = ResultsFile(path, ABOUT)
        assert [one.chain for one in resumed.measurements] == chains[:2]
        list(measure([("a", recording)], chains, MelConfig(), self.reconstruct(calls), resumed))

        assert calls == [*chains[:2], chains[0], chains[2]]  # the full one again, since its sound is not kept
        results = {one.chain: one for one in summarize(ResultsFile(path, ABOUT).measurements)}
        assert list(results) == [chains[1], chains[2], chains[0]]
        assert results[chains[0]].to_full_db == 0
        assert results[chains[1]].to_full_db > results[chains[2]].to_full_db > 0
        assert results[chains[1]].times_real_time == pytest.approx(0.5 / 0.05)
        calls.clear()
        list(measure([("a", recording)], chains, MelConfig(), self.reconstruct(calls), ResultsFile(path, ABOUT)))
        assert calls == []

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("", "is not a results file of gomin-client calibrate"),
            ("no JSON\n", "is not a results file of gomin-client calibrate"),
            (json.dumps(ABOUT) + '\n{"chain": 3}\n', "is not a results file of gomin-client calibrate"),
            (json.dumps({**ABOUT, "version": 2}), "has measurements with another version: choose another file"),
        ],
    )
    def test_other_files_are_refused(self, tmp_path: Path, content: str, words: str) -> None:
        (tmp_path / "results.jsonl").write_text(content)

        with pytest.raises(FileError, match=words):
            ResultsFile(tmp_path / "results.jsonl", ABOUT)
