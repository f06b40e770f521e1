"""Winograd's minimal filtering (Toom-Cook): FIR filters with fewer multiplications.

Winograd 1980, Arithmetic Complexity of Computations, chapter 5; Lavin & Gray 2016, arXiv:1509.09308, section 4. m
outputs of a filter of r taps take n = m + r - 1 multiplications instead of m·r:

    y = synthesis · ((taps · g) ⊙ (analysis · x))        y(i) = Σ_k g(k)·x(i + k),  i = 0 … m-1

The product of polynomials with m and r coefficients is computed by evaluating both at n points, multiplying, and
interpolating; the filter is the transpose of this. It is exact in real arithmetic; in float32 the error grows with n,
and n = 7 loses one decimal digit. All three matrices are computed in fractions. Factors that are not dyadic are in the
matrix that is applied to the weights at export, so that the matrices in the model have no rounding error.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

# Small numbers and their inverses, of both signs, in order of increasing rounding error. The last point is infinity.
_POINTS = [Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2", "4", "-4", "1/4", "-1/4")]
UNIT = 1  # the index of the point 1, whose column in `synthesis` is all ones


@dataclass(frozen=True)
class WinogradFilter:
    """The matrices of one F(m, r), in float64.

    Attributes:
        analysis: (n, n), from inputs to points.
        taps: (n, r), from filter taps to points.
        synthesis: (m, n), from points to outputs.
    """

    analysis: Tensor
    taps: Tensor
    synthesis: Tensor

    @classmethod
    def of(cls, outputs: int, taps: int) -> WinogradFilter:
        """F(outputs, taps).

        Raises:
            ValueError: it needs more points than are listed, or is not a filter.
        """
        count = outputs + taps - 1
        if not 2 < count <= len(_POINTS) + 1:
            raise ValueError(f"F({outputs}, {taps}) needs {count} points; from 3 to {len(_POINTS) + 1} are there")
        points = _POINTS[: count - 1]
        analysis, scales = [], []
        for i, point in enumerate(points):
            others = points[:i] + points[i + 1 :]
            # The polynomial that is 0 at all other points: the Lagrange polynomial without its scale, the value at the
            # point itself, which divides the taps.
            polynomial = _product(others)
            analysis.append([*polynomial, Fraction(0)])
            scales.append(sum((value * point**power for power, value in enumerate(polynomial)), Fraction(0)))
        analysis.append(_product(points))
        scales.append(Fraction(1))
        evaluation = _powers(points, taps)
        return cls(
            _tensor(analysis),
            _tensor([[value / scale for value in row] for row, scale in zip(evaluation, scales, strict=True)]),
            _tensor(_powers(points, outputs)).T.contiguous(),
        )


def _product(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients of Π (x - root), from the constant up."""
    polynomial = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *polynomial]
        for power, coefficient in enumerate(polynomial):
            shifted[power] -= root * coefficient
        polynomial = shifted
    return polynomial


def _powers(points: list[Fraction], count: int) -> list[list[Fraction]]:
    """The powers 0 … count-1 of each point; for infinity the highest only."""
    return [[point**power for power in range(count)] for point in points] + [
        [Fraction(0)] * (count - 1) + [Fraction(1)]
    ]


def _tensor(rows: list[list[Fraction]]) -> Tensor:
    return torch.tensor([[float(value) for value in row] for row in rows], dtype=torch.float64)
