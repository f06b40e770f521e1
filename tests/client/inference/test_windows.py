"""Windows cover a mel exactly, and streams equal wholes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomin_client.errors import UsageError
from gomin_client.inference import windows
from gomin_client.inference.windows import Window, Windower, cut, overhead
from tests.client.inference.pieces import pieces

BLOCKS = st.lists(st.integers(1, 50), min_size=1, max_size=5)


class TestWindower:
    @given(st.integers(1, 400), st.integers(0, 20), st.integers(1, 60), st.integers(1, 30), BLOCKS)
    def test_covers_every_frame_once_with_its_halo(
        self, frames: int, halo: int, extra: int, first: int, blocks: list[int]
    ) -> None:
        size = 2 * halo + extra
        windower = Windower(size, halo, halo + first)
        windows: list[Window] = []
        needed = 0
        for begin, end in pieces(frames, blocks):
            for window in windower.feed(end - begin):
                assert window.first >= needed
                assert window.first + window.length < end, "told before it was sure not to be the last"
                windows.append(window)
            needed = windower.needed_from
        for window in windower.finish():
            assert window.first >= needed
            windows.append(window)

        made = 0
        for window in windows:
            assert window.keep > 0
            assert window.first + window.skip == made
            made += window.keep
            end = window.first + window.length
            assert window.first == 0 or window.skip >= halo
            assert end == frames or end - made >= halo
            assert 0 <= window.first < end <= frames
            assert window.length <= size
        assert made == frames

    @given(st.integers(1, 3000), st.integers(0, 40), st.integers(1, 200))
    def test_all_windows_have_one_size(self, frames: int, halo: int, extra: int) -> None:
        size = 2 * halo + extra
        windows = cut(frames, size, halo)

        assert {window.length for window in windows} == {min(size, frames)}
        assert len(windows) == max(1, -(-(frames - 2 * halo) // extra))

    def test_the_first_windows_grow(self) -> None:
        windower = Windower(512, 32, 50)
        lengths = [window.length for window in windower.feed(3000)]

        assert lengths[:6] == [50, 100, 200, 400, 512, 512]

    def test_windows_of_which_nothing_is_kept(self) -> None:
        with pytest.raises(UsageError, match="expected more than 64, twice the model's halo"):
            Windower(64, 32)
        with pytest.raises(UsageError, match="expected more than 32, the model's halo"):
            Windower(65, 32, 32)

    @pytest.mark.parametrize("halo", [0, 32, 78, 650])
    def test_default_size(self, halo: int) -> None:
        assert overhead(windows.default_size(halo), halo) <= 0.25

    def test_nothing_is_nothing(self) -> None:
        assert cut(0, 10, 2) == []


@pytest.mark.parametrize(("size", "first"), [("5", None), (5.0, None), (50, "9")])
def test_a_window_is_a_whole_number(size: object, first: object) -> None:
    with pytest.raises(UsageError, match=r"a window of ('5'|5\.0|'9') frames: expected a whole number"):
        windows.check_window(size, 1, first)  # type: ignore[arg-type]
