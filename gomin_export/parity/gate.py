"""The parity gate: a model must compute what the PyTorch network computes, or it is not placed in a repository.

Names, types, shapes and values are checked in this order, in which a failure explains itself.

The reference is the network in float64. PyTorch's own float32 result has a rounding error, which grows with the gains
of a checkpoint. The error of a float32 export may reach `ATOL`, or `OWN_ERRORS` times PyTorch's float32 error,
whichever is larger. A float16 export needs an SNR of at least `FP16_SNR_DB`.

Imports no torch: with recorded cases (`record.py`) a deployment is verified without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.contract.model import FP32
from gomin_client.errors import ContractError, InferenceError
from gomin_export.errors import ParityError

ATOL = 1e-5  # on waveforms of full scale ±1, and on predicted noise of unit variance
OWN_ERRORS = 4
FP16_SNR_DB = 40.0

Inputs = Mapping[str, NDArray[Any]]
Infer = Callable[[Inputs], NDArray[np.floating[Any]]]


@dataclass(frozen=True)
class Expected:
    """The answer of the network to one request.

    Attributes:
        output: (B, 1, N) or (B, n_mels, T) float64, the reference's output in float64.
        torch_error: max abs error of the network in float32.
    """

    output: NDArray[np.float64]
    torch_error: float


@dataclass(frozen=True)
class Case:
    """One request to a model, and the answer of the network in float64.

    Attributes:
        name: describes the inputs.
        inputs: tensor name → array, batch axis first.
        compute: computes the answer. It is called once, when the answer is needed: the outcomes of the cases before
            can be printed by then.
    """

    name: str
    inputs: Inputs
    compute: Callable[[], Expected]

    @classmethod
    def known(cls, name: str, inputs: Inputs, expected: Expected) -> Case:
        """A case whose answer is there already."""
        return cls(name, inputs, lambda: expected)

    @cached_property
    def expected(self) -> Expected:
        """The answer."""
        return self.compute()

    @property
    def output(self) -> NDArray[np.float64]:
        """See `Expected`."""
        return self.expected.output

    @property
    def torch_error(self) -> float:
        """See `Expected`."""
        return self.expected.torch_error


@dataclass(frozen=True)
class Tolerance:
    """The largest error allowed; None sets no bound.

    Attributes:
        atol: max abs error; the bound is `own_errors` times PyTorch's float32 error if that is larger.
        min_snr: lowest ratio of signal to error, in dB.
        own_errors: 0 if `atol` is an exact bound.
    """

    atol: float | None
    min_snr: float | None
    own_errors: float = 0

    @classmethod
    def of(cls, precision: str, atol: float | None = None, min_snr: float | None = None) -> Tolerance:
        """The tolerance for a precision. An explicit bound is exact."""
        if precision == FP32:
            return cls(ATOL, min_snr, OWN_ERRORS) if atol is None else cls(atol, min_snr)
        return cls(atol, FP16_SNR_DB if min_snr is None else min_snr)

    def __str__(self) -> str:
        bounds = []
        if self.atol is not None:
            own = f", or {self.own_errors:g} × PyTorch float32's own" if self.own_errors else ""
            bounds.append(f"max abs error ≤ {self.atol:.1e}{own}")
        if self.min_snr is not None:
            bounds.append(f"SNR ≥ {self.min_snr:g} dB")
        return "; ".join(bounds)


@dataclass(frozen=True)
class CaseResult:
    """The result of one case: the model's error against the network in float64.

    Attributes:
        name: the case's.
        max_abs_error: the model's; NaN if it answered NaN, or did not answer.
        snr_db: ratio of signal to error, in dB; infinite if there is no error.
        torch_error: max abs error of the network in float32.
        problem: the reason if there is nothing to compare; empty otherwise.
    """

    name: str
    max_abs_error: float
    snr_db: float
    torch_error: float
    problem: str = ""

    def passes(self, tolerance: Tolerance) -> bool:
        """Whether the error is within the tolerance. NaN is not: it compares as neither greater nor smaller."""
        if self.problem or not math.isfinite(self.max_abs_error):
            return False
        if tolerance.atol is not None and not self.max_abs_error <= self.limit(tolerance):
            return False
        return tolerance.min_snr is None or self.snr_db >= tolerance.min_snr

    def limit(self, tolerance: Tolerance) -> float:
        """The max abs error allowed in this case."""
        return math.inf if tolerance.atol is None else max(tolerance.atol, tolerance.own_errors * self.torch_error)

    def excess(self, tolerance: Tolerance) -> float:
        """The error in units of the tolerance, to find the worst case: above 1 the case fails."""
        if self.problem or not math.isfinite(self.max_abs_error):
            return math.inf
        by_error = self.max_abs_error / max(self.limit(tolerance), 1e-300)
        by_snr = 0.0 if tolerance.min_snr is None else float(10 ** min((tolerance.min_snr - self.snr_db) / 20, 300))
        return max(by_error, by_snr)


class Table:
    """Lays out outcomes in lines. Its columns are known before the first outcome is."""

    def __init__(self, tolerance: Tolerance, names: Sequence[str]) -> None:
        """Args: names: of all cases."""
        self._tolerance = tolerance
        self._width = max(map(len, names), default=0)

    def head(self, model: str, reference: str) -> list[str]:
        """The lines above the rows.

        Args:
            model: its name.
            reference: what computed the expected outputs.
        """
        return [
            f"{model}, allowed: {self._tolerance}",
            f"{'':<{self._width}}  max abs error  {reference + ' float32':>15}     SNR dB",
        ]

    def row(self, outcome: CaseResult) -> str:
        """The line of one outcome."""
        if outcome.problem:
            return f"{outcome.name}: {outcome.problem}  FAIL"
        verdict = "pass" if outcome.passes(self._tolerance) else "FAIL"
        figures = f"{outcome.max_abs_error:13.1e}  {outcome.torch_error:15.1e}  {outcome.snr_db:9.1f}  {verdict}"
        return f"{outcome.name:<{self._width}}  {figures}"


@dataclass(frozen=True)
class Report:
    """The gate's outcomes for one model.

    Attributes:
        model: its name.
        outcomes: one for each case.
        tolerance: the one that they are judged by.
        facts: circumstances of the comparison, for parity.json: versions, digests, execution providers.
    """

    model: str
    outcomes: Sequence[CaseResult]
    tolerance: Tolerance
    facts: Mapping[str, Any]

    @property
    def reference(self) -> str:
        """What computed the expected outputs."""
        return self.reference_of(self.facts)

    @staticmethod
    def reference_of(facts: Mapping[str, Any]) -> str:
        """What computed the expected outputs of a report with these facts."""
        return str(facts.get("reference", "PyTorch"))

    @property
    def failed(self) -> list[CaseResult]:
        """Outcomes outside the tolerance."""
        return [outcome for outcome in self.outcomes if not outcome.passes(self.tolerance)]

    @property
    def worst(self) -> CaseResult:
        """The outcome with the largest error, measured by the tolerance."""
        return max(self.outcomes, key=lambda outcome: outcome.excess(self.tolerance))

    @property
    def summary(self) -> str:
        """One line of ASCII for config.pbtxt and the command line."""
        verdict = f"{len(self.outcomes) - len(self.failed)} of {len(self.outcomes)} cases passed"
        compared = [outcome for outcome in self.outcomes if not outcome.problem]
        if not compared:
            return verdict
        largest = max(outcome.max_abs_error for outcome in compared)
        torch_error = max(outcome.torch_error for outcome in compared)
        snr = min(outcome.snr_db for outcome in compared)
        own = f"{self.reference} float32: {torch_error:.1e}"
        return f"{verdict}, max abs error {largest:.1e} ({own}), least SNR {snr:.1f} dB"

    @property
    def table(self) -> Table:
        """The layout of its outcomes."""
        return Table(self.tolerance, [outcome.name for outcome in self.outcomes])

    def lines(self) -> list[str]:
        """The table, with one line for each case, and what follows from it."""
        table = self.table
        rows = [table.row(outcome) for outcome in self.outcomes]
        return [*table.head(self.model, self.reference), *rows, *self.conclusion()]

    def conclusion(self) -> list[str]:
        """What follows the rows of the table."""
        note = [f"{self.model}: {self.facts['note']}"] if "note" in self.facts else []
        return [*([f"{self.model}: {self.summary}"] if self.outcomes else []), *note]

    def require(self, consequence: str) -> None:
        """Raise an error if a case failed.

        Args:
            consequence: the last sentence of the message: what follows from the failure.

        Raises:
            ParityError: names the worst case.
        """
        if not self.failed:
            return
        worst = self.worst
        what = worst.problem or f"off by {worst.max_abs_error:.2e}, SNR {worst.snr_db:.1f} dB"
        raise ParityError(
            f"{self.model} differs from {self.reference} in {len(self.failed)} of {len(self.outcomes)} cases; "
            f"the worst is {worst.name}: {what} (allowed: {self.tolerance}). {consequence}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values. JSON has neither NaN nor infinity: both become null."""
        return {
            "model": self.model,
            "passed": not self.failed if self.outcomes else None,
            **self.facts,
            "tolerance": {
                "atol": self.tolerance.atol,
                "min_snr_db": self.tolerance.min_snr,
                "times_torch_float32_error": self.tolerance.own_errors,
            },
            "cases": [
                {
                    "name": outcome.name,
                    "passed": outcome.passes(self.tolerance),
                    "max_abs_error": _finite(outcome.max_abs_error),
                    "snr_db": _finite(outcome.snr_db),
                    "torch_float32_error": outcome.torch_error,
                    **({"problem": outcome.problem} if outcome.problem else {}),
                }
                for outcome in self.outcomes
            ],
        }

    @classmethod
    def from_dict(cls, report: Mapping[str, Any]) -> Report:
        """Read the values that `to_dict` made.

        Raises:
            KeyError, TypeError, ValueError: `to_dict` did not make them.
        """
        recorded = report["tolerance"]
        atol, min_snr = (None if recorded[name] is None else float(recorded[name]) for name in ("atol", "min_snr_db"))
        tolerance = Tolerance(atol, min_snr, float(recorded["times_torch_float32_error"]))

        def number(value: float | None, otherwise: float) -> float:
            return otherwise if value is None else value

        outcomes = [
            CaseResult(
                case["name"],
                number(case["max_abs_error"], math.nan),
                number(case["snr_db"], math.inf if case["max_abs_error"] == 0 else -math.inf),
                case["torch_float32_error"],
                case.get("problem", ""),
            )
            for case in report["cases"]
        ]
        own = ("model", "passed", "tolerance", "cases")
        facts = {name: value for name, value in report.items() if name not in own}
        return cls(report["model"], outcomes, tolerance, facts)


def compare(
    infer: Infer,
    cases: Sequence[Case],
    max_batch_size: int | None = None,
    report: Callable[[CaseResult], None] = lambda _: None,
) -> list[CaseResult]:
    """Send each case to a model and compare its answer with the expected output.

    Args:
        infer: calls the model with tensors by name. A request that fails is a failed case.
        cases: inputs and expected outputs.
        max_batch_size: the largest batch of one request, if the model has a limit.
        report: called with each outcome as soon as it is known.

    Raises:
        ServerError: the server cannot be reached.
    """
    outcomes = []
    for case in cases:
        outcomes.append(_compare(infer, case, max_batch_size))
        report(outcomes[-1])
    return outcomes


def _compare(infer: Infer, case: Case, max_batch_size: int | None) -> CaseResult:
    def failed(problem: str) -> CaseResult:
        return CaseResult(case.name, math.nan, math.nan, case.torch_error, problem)

    items = len(case.output)
    step = min(items, max_batch_size or items)
    try:
        parts = [
            infer({name: tensor[first : first + step] for name, tensor in case.inputs.items()})
            for first in range(0, items, step)
        ]
    except (InferenceError, ContractError) as refusal:
        return failed(str(refusal))
    if any(part.dtype != np.float32 or part.shape[1:] != case.output.shape[1:] for part in parts):
        return failed(f"answered {parts[0].dtype} {parts[0].shape}; expected float32 {(step, *case.output.shape[1:])}")
    actual = np.concatenate(parts)
    if actual.shape != case.output.shape:
        return failed(f"answered {actual.shape}; expected {case.output.shape}")
    error = actual.astype(np.float64) - case.output
    return CaseResult(case.name, float(np.abs(error).max()), _snr_db(case.output, error), case.torch_error)


def _snr_db(signal: NDArray[np.float64], error: NDArray[np.float64]) -> float:
    """Ratio of signal power to error power, in dB; infinite without an error, NaN for an error that is NaN."""
    signal_power, error_power = float(np.square(signal).sum()), float(np.square(error).sum())
    if error_power == 0:
        return math.inf
    if signal_power == 0 or math.isinf(error_power):
        return -math.inf
    return 10 * math.log10(signal_power / error_power)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
