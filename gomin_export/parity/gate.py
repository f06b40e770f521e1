"""The parity gate: a model must compute what the PyTorch network computes, or it is not placed anywhere.

Checked in the order in which a failure explains itself: names, types, shapes, then values.

The yardstick is the network in float64. In float32 PyTorch is itself off by its own rounding, which grows with the
gains of a checkpoint: a float32 export may be off by `ATOL`, or by `OWN_ERRORS` times what PyTorch's float32 is off,
whichever is more. A float16 export must stay `FP16_SNR_DB` above its error.

Imports no torch: with recorded expectations (`records.py`) a deployment is verified without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
class Expectation:
    """What a model must answer.

    Attributes:
        name: what is fed, in words.
        inputs: tensor name → array, the batch first.
        output: (B, 1, N) float64, what the network gives in float64.
        torch_error: how far PyTorch's float32 is off, max abs.
    """

    name: str
    inputs: Inputs
    output: NDArray[np.float64]
    torch_error: float


@dataclass(frozen=True)
class Tolerance:
    """How far off a model may be; None sets no bound.

    Attributes:
        atol: max abs error, or `own_errors` times what PyTorch's float32 is off, if that is more.
        min_snr: least ratio of signal to error, in dB.
        own_errors: 0 where `atol` itself is the bound.
    """

    atol: float | None
    min_snr: float | None
    own_errors: float = 0

    @classmethod
    def of(cls, precision: str, atol: float | None = None, min_snr: float | None = None) -> Tolerance:
        """The tolerance for a precision; a bound that the caller asks for is kept to as it is."""
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
class Case:
    """One comparison with the network in float64.

    Attributes:
        name: what was fed.
        max_abs_error: of the model; NaN where it answered NaN, or not at all.
        snr_db: signal over error, in dB; infinite where there is no error.
        torch_error: of the network in float32, max abs.
        problem: why there is nothing to compare; empty otherwise.
    """

    name: str
    max_abs_error: float
    snr_db: float
    torch_error: float
    problem: str = ""

    def passes(self, tolerance: Tolerance) -> bool:
        """Whether the model is near enough. NaN is not: it compares as neither greater nor smaller."""
        if self.problem or not math.isfinite(self.max_abs_error):
            return False
        if tolerance.atol is not None and not self.max_abs_error <= self.limit(tolerance):
            return False
        return tolerance.min_snr is None or self.snr_db >= tolerance.min_snr

    def limit(self, tolerance: Tolerance) -> float:
        """The error allowed in this case."""
        return math.inf if tolerance.atol is None else max(tolerance.atol, tolerance.own_errors * self.torch_error)

    def excess(self, tolerance: Tolerance) -> float:
        """How bad the case is, to find the worst: above 1 it fails."""
        if self.problem or not math.isfinite(self.max_abs_error):
            return math.inf
        by_error = self.max_abs_error / max(self.limit(tolerance), 1e-300)
        by_snr = 0.0 if tolerance.min_snr is None else float(10 ** min((tolerance.min_snr - self.snr_db) / 20, 300))
        return max(by_error, by_snr)


@dataclass(frozen=True)
class Report:
    """What the gate found for one model.

    Attributes:
        model: its name.
        cases: the comparisons.
        tolerance: what was allowed.
        facts: what was compared with what, for parity.json: versions, digests, execution providers.
    """

    model: str
    cases: Sequence[Case]
    tolerance: Tolerance
    facts: Mapping[str, Any]

    @property
    def failed(self) -> list[Case]:
        """The cases that do not pass."""
        return [case for case in self.cases if not case.passes(self.tolerance)]

    @property
    def worst(self) -> Case:
        """The case that comes nearest to failing, or fails by most."""
        return max(self.cases, key=lambda case: case.excess(self.tolerance))

    @property
    def summary(self) -> str:
        """One line of ASCII, for config.pbtxt and the command line."""
        verdict = f"{len(self.cases) - len(self.failed)} of {len(self.cases)} cases passed"
        compared = [case for case in self.cases if not case.problem]
        if not compared:
            return verdict
        largest = max(case.max_abs_error for case in compared)
        torch_error = max(case.torch_error for case in compared)
        snr = min(case.snr_db for case in compared)
        return f"{verdict}, max abs error {largest:.1e} (PyTorch float32: {torch_error:.1e}), least SNR {snr:.1f} dB"

    def table(self) -> str:
        """One line a case."""
        width = max(len(case.name) for case in self.cases)
        lines = [
            f"{self.model}, allowed: {self.tolerance}",
            f"{'':<{width}}  max abs error  PyTorch float32     SNR dB",
        ]
        for case in self.cases:
            verdict = "pass" if case.passes(self.tolerance) else "FAIL"
            figures = f"{case.max_abs_error:13.1e}  {case.torch_error:15.1e}  {case.snr_db:9.1f}  {verdict}"
            lines.append(f"{case.name:<{width}}  {case.problem or figures}{'  FAIL' if case.problem else ''}")
        return "\n".join(lines)

    def require(self, consequence: str) -> None:
        """Raise if a case failed.

        Args:
            consequence: what that means, the end of the message.

        Raises:
            ParityError: names the worst case.
        """
        if not self.failed:
            return
        worst = self.worst
        what = worst.problem or f"off by {worst.max_abs_error:.2e}, SNR {worst.snr_db:.1f} dB"
        raise ParityError(
            f"{self.model} differs from PyTorch in {len(self.failed)} of {len(self.cases)} cases; the worst is "
            f"{worst.name}: {what} (allowed: {self.tolerance}). {consequence}"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which knows neither NaN nor infinity: they become null."""
        return {
            "model": self.model,
            "passed": not self.failed,
            **self.facts,
            "tolerance": {
                "atol": self.tolerance.atol,
                "min_snr_db": self.tolerance.min_snr,
                "times_torch_float32_error": self.tolerance.own_errors,
            },
            "cases": [
                {
                    "name": case.name,
                    "passed": case.passes(self.tolerance),
                    "max_abs_error": _finite(case.max_abs_error),
                    "snr_db": _finite(case.snr_db),
                    "torch_float32_error": case.torch_error,
                    **({"problem": case.problem} if case.problem else {}),
                }
                for case in self.cases
            ],
        }

    @classmethod
    def from_dict(cls, report: Mapping[str, Any], tolerance: Tolerance | None = None) -> Report:
        """What `to_dict` recorded, judged by the tolerance that was recorded, or one of one's own.

        Raises:
            KeyError, TypeError, ValueError: it is not what `to_dict` makes.
        """
        recorded = report["tolerance"]
        if tolerance is None:
            atol, min_snr = (
                None if recorded[name] is None else float(recorded[name]) for name in ("atol", "min_snr_db")
            )
            tolerance = Tolerance(atol, min_snr, float(recorded["times_torch_float32_error"]))

        def number(value: float | None, otherwise: float) -> float:
            return otherwise if value is None else value

        cases = [
            Case(
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
        return cls(report["model"], cases, tolerance, facts)


def compare(infer: Infer, expectations: Sequence[Expectation], max_batch_size: int | None = None) -> list[Case]:
    """Feed a model and compare its answers with what is expected.

    Args:
        infer: calls the model with tensors by name; an error of a single request is a failed case.
        expectations: what to feed and to expect.
        max_batch_size: the most items of one request, where the model has a limit.

    Raises:
        ServerError: the server cannot be reached.
    """
    return [_compare(infer, expected, max_batch_size) for expected in expectations]


def _compare(infer: Infer, expected: Expectation, max_batch_size: int | None) -> Case:
    items = len(expected.output)
    step = min(items, max_batch_size or items)
    try:
        parts = [
            infer({name: tensor[first : first + step] for name, tensor in expected.inputs.items()})
            for first in range(0, items, step)
        ]
    except (InferenceError, ContractError) as refusal:
        return Case(expected.name, math.nan, math.nan, expected.torch_error, problem=str(refusal))
    if any(part.dtype != np.float32 or part.shape[1:] != expected.output.shape[1:] for part in parts):
        problem = f"answered {parts[0].dtype} {parts[0].shape}; expected float32 {(step, *expected.output.shape[1:])}"
        return Case(expected.name, math.nan, math.nan, expected.torch_error, problem)
    actual = np.concatenate(parts)
    if actual.shape != expected.output.shape:
        problem = f"answered {actual.shape}; expected {expected.output.shape}"
        return Case(expected.name, math.nan, math.nan, expected.torch_error, problem)
    error = actual.astype(np.float64) - expected.output
    return Case(expected.name, float(np.abs(error).max()), _snr_db(expected.output, error), expected.torch_error)


def _snr_db(signal: NDArray[np.float64], error: NDArray[np.float64]) -> float:
    """Power of the signal over that of the error, in dB; infinite for no error, NaN for an error that is NaN."""
    signal_power, error_power = float(np.square(signal).sum()), float(np.square(error).sum())
    if error_power == 0:
        return math.inf
    if signal_power == 0 or math.isinf(error_power):
        return -math.inf
    return 10 * math.log10(signal_power / error_power)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
