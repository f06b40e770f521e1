"""The gate: tolerances, outcomes and reports."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from gomin_export.errors import ParityError
from gomin_export.parity import gate
from gomin_export.parity.gate import Case, CaseResult, Expected, Report, Tolerance

FP32 = Tolerance.of("fp32")
FP16 = Tolerance.of("fp16")


def case(output: float = 0.5, torch_error: float = 0.0, items: int = 1) -> Case:
    inputs = {"mel": np.zeros((items, 2, 3), np.float32)}
    return Case.known("case", inputs, Expected(np.full((items, 1, 6), output), torch_error))


def answer(value: float) -> Callable[[gate.Inputs], np.ndarray]:
    return lambda inputs: np.full((len(inputs["mel"]), 1, 6), value, np.float32)


class TestCases:
    @pytest.mark.parametrize(
        ("value", "torch_error", "tolerance", "passes"),
        [
            (0.5, 0.0, FP32, True),
            (0.500009, 0.0, FP32, True),
            (0.500011, 0.0, FP32, False),
            (0.5005, 0.0002, FP32, True),  # a checkpoint with large gains: PyTorch itself is off
            (0.501, 0.0002, FP32, False),
            (0.504, 0.0, FP16, True),
            (0.506, 0.0, FP16, False),  # 38 dB
            (0.5000001, 0.0, Tolerance(1e-5, 150.0), False),
            (math.nan, 1.0, FP32, False),
            (math.inf, 0.0, FP16, False),
        ],
    )
    def test_tolerance(self, value: float, torch_error: float, tolerance: Tolerance, passes: bool) -> None:
        (outcome,) = gate.compare(answer(value), [case(torch_error=torch_error)])

        assert outcome.passes(tolerance) == passes
        assert (outcome.excess(tolerance) <= 1) == passes

    def test_snr(self) -> None:
        (outcome,) = gate.compare(answer(0.505), [case()])
        assert outcome.snr_db == pytest.approx(40, abs=0.01)
        assert gate.compare(answer(0.5), [case()])[0].snr_db == math.inf
        assert gate.compare(answer(0.1), [case(0.0)])[0].snr_db == -math.inf

    def test_large_batches_are_fed_in_parts(self) -> None:
        fed = []

        def infer(inputs: gate.Inputs) -> np.ndarray:
            fed.append(len(inputs["mel"]))
            return answer(0.5)(inputs)

        (outcome,) = gate.compare(infer, [case(items=5)], max_batch_size=2)

        assert fed == [2, 2, 1]
        assert outcome.max_abs_error == 0

    @pytest.mark.parametrize("shape", [(1, 6), (1, 1, 5), (2, 1, 6), (1, 1, 1)])
    def test_another_shape_fails(self, shape: tuple[int, ...]) -> None:
        (outcome,) = gate.compare(lambda _: np.zeros(shape, np.float32), [case(0.0)])

        assert "expected" in outcome.problem
        assert not outcome.passes(FP32)

    def test_another_type_fails(self) -> None:
        (outcome,) = gate.compare(lambda _: np.full((1, 1, 6), 0.5), [case()])

        assert "answered float64" in outcome.problem

    def test_an_outcome_is_reported_before_the_next_case_is_computed(self) -> None:
        said: list[str] = []

        def computed(name: str) -> Case:
            def compute() -> Expected:
                said.append(f"computing {name}")
                return case().expected

            return Case(name, case().inputs, compute)

        gate.compare(answer(0.5), [computed("a"), computed("b")], report=lambda outcome: said.append(outcome.name))

        assert said == ["computing a", "a", "computing b", "b"]


class TestReport:
    OUTCOMES = (
        CaseResult("fine", 1e-7, 120.0, 1e-7),
        CaseResult("bad", 0.1, 10.0, 1e-7),
        CaseResult("worse", math.nan, math.nan, 1e-7),
    )

    def test_names_the_worst_case(self) -> None:
        with pytest.raises(
            ParityError, match=r"m differs .* in 2 of 3 cases; the worst is worse: off by nan.* Nothing"
        ):
            Report("m", self.OUTCOMES, FP32, {}).require("Nothing was placed")

    def test_table_has_a_line_for_every_case(self) -> None:
        title, columns, fine, bad, worse, conclusion = Report("m", self.OUTCOMES, FP32, {}).lines()

        assert title.startswith("m, allowed: max abs error")
        assert conclusion.startswith("m: 1 of 3 cases passed")
        assert len({columns.index("SNR dB") + len("SNR dB"), *(len(row) - len("  pass") for row in (fine, bad))}) == 1
        assert (fine.split()[0], fine.split()[-1]) == ("fine", "pass")
        assert bad.split() == ["bad", "1.0e-01", "1.0e-07", "10.0", "FAIL"]
        assert worse.split()[-1] == "FAIL"

    def test_there_and_back_through_json(self) -> None:
        outcomes = (
            *self.OUTCOMES[:1],
            CaseResult("exact", 0.0, math.inf, 0.0),
            CaseResult("absent", math.nan, math.nan, 0.0, "gone"),
        )
        report = Report("m", outcomes, FP16, {"files": {"a": "b"}})
        text = json.dumps(report.to_dict(), allow_nan=False)

        back = Report.from_dict(json.loads(text))

        assert back.outcomes[:2] == list(outcomes[:2])
        assert back.outcomes[2].problem == "gone"
        assert (back.model, back.facts, back.tolerance) == ("m", {"files": {"a": "b"}}, FP16)
