"""Arrays and blocks from Python code."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gomin_client.errors import SuspiciousAudioError, UsageError
from gomin_client.inference.checks import Blocks, Counted, checked_wave, refuse_excess, trimmed

BLOCK = np.arange(8, dtype=np.float32).reshape(2, 4)


def as_is(block: NDArray[np.float32]) -> NDArray[np.float32]:
    return block


class TestBlocks:
    def test_an_axis_is_added_and_taken_away(self) -> None:
        single = Blocks([BLOCK[0], BLOCK[1]], 1, as_is, "channels")
        assert [block.shape for block in single] == [(1, 4), (1, 4)]
        assert [part.shape for part in single.restored([BLOCK[:1]])] == [(4,)]

        several = Blocks([BLOCK], 1, as_is, "channels")
        assert [block.shape for block in several] == [(2, 4)]
        assert [part.shape for part in several.restored([BLOCK])] == [(2, 4)]

    def test_blocks_without_anything_new_are_left_out(self) -> None:
        assert len(list(Blocks([BLOCK[:, :0], BLOCK], 1, as_is, "channels"))) == 1
        assert len(list(Blocks([BLOCK.T[:0], BLOCK.T], 1, np.transpose, "channels", time_first=True))) == 1

    @pytest.mark.parametrize("second", [BLOCK[:1], BLOCK[0]])
    def test_another_number_of_rows_is_refused(self, second: NDArray[np.float32]) -> None:
        with pytest.raises(UsageError, match="after blocks with 2 channels: expected the same"):
            list(Blocks([BLOCK, second], 1, as_is, "channels"))

    def test_trimming_to_what_has_been_counted(self) -> None:
        recorded = Counted([BLOCK, BLOCK[:, :1]])
        parts = trimmed((np.zeros((2, 3), np.float32) for _ in recorded), recorded)
        assert [part.shape[-1] for part in parts] == [3, 2]


class TestLevel:
    @pytest.mark.parametrize("peak", [0.0, 1.0, 1.7, 8.0])
    def test_mild_overs_pass(self, peak: float) -> None:
        refuse_excess(np.array([[0, -peak, peak / 2]], np.float32))

    @pytest.mark.parametrize(
        ("peak", "words"),
        [
            (8.1, "reaches 8.1, far beyond full scale.* 16 bits .* Divide it by 32768 .*volume=1/32768"),
            (-32768, "16 bits stored as floats"),
            (40000, "24 bits stored as floats. Divide it by 8388608 "),
            (2**31, "32 bits stored as floats. Divide it by 2147483648 "),
            (1e20, r"its scale is not known. Divide it by 1e\+20, for instance"),
        ],
    )
    def test_far_beyond_full_scale_is_refused(self, peak: float, words: str) -> None:
        with pytest.raises(SuspiciousAudioError, match=words) as raised:
            refuse_excess(np.array([[0.1, peak]], np.float32))

        assert "`force=True` skips this check" in str(raised.value)

    def test_a_waveform_can_be_forced(self) -> None:
        wave = np.full(10, 32767, np.float32)

        with pytest.raises(SuspiciousAudioError):
            checked_wave(wave)
        np.testing.assert_array_equal(checked_wave(wave, force=True), wave)
