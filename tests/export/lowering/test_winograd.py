"""Winograd filters equal the filters that they are made of."""

from __future__ import annotations

import pytest
import torch

from gomin_export.lowering.winograd import UNIT, WinogradFilter
from tests.export.lowering.helpers import close


class TestWinogradFilter:
    @pytest.mark.parametrize(("outputs", "taps"), [(1, 3), (2, 3), (4, 1), (4, 3), (4, 4), (6, 5), (3, 8)])
    def test_is_the_filter(self, outputs: int, taps: int) -> None:
        winograd = WinogradFilter.of(outputs, taps)
        torch.manual_seed(taps)
        x, g = torch.randn(outputs + taps - 1).double(), torch.randn(taps).double()

        y = winograd.synthesis @ ((winograd.taps @ g) * (winograd.analysis @ x))

        close(y, torch.stack([g @ x[i : i + taps] for i in range(outputs)]), 1e-11)

    def test_the_unit_point_is_a_part_of_every_output(self) -> None:
        assert (WinogradFilter.of(4, 4).synthesis[:, UNIT] == 1).all()

    def test_what_runs_has_nothing_to_round(self) -> None:
        winograd = WinogradFilter.of(4, 4)

        assert ((64 * winograd.analysis) % 1 == 0).all()
        assert ((64 * winograd.synthesis) % 1 == 0).all()

    @pytest.mark.parametrize(("outputs", "taps"), [(1, 1), (12, 12)])
    def test_refuses_what_it_has_no_points_for(self, outputs: int, taps: int) -> None:
        with pytest.raises(ValueError, match="points"):
            WinogradFilter.of(outputs, taps)
