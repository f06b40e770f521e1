"""Windows cover a mel exactly, and streams equal wholes."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gomin_client.errors import InferenceError, UsageError
from gomin_client.inference import stream as streaming
from gomin_client.inference import windows
from gomin_client.inference.windows import Window, Windower, cut, overhead
from gomin_client.inference.workers import Workers
from gomin_client.mel.features import MelConfig, mel_blocks, mel_spectrogram

HOP = 3


def pieces(total: int, sizes: list[int]) -> list[tuple[int, int]]:
    """Cut 0 … total into pieces of the given sizes, repeated."""
    edges = [0]
    for size in itertools.cycle(sizes):
        if edges[-1] >= total:
            return list(itertools.pairwise(edges))
        edges.append(min(total, edges[-1] + size))
    raise AssertionError


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
        windower = Windower(512, 33, 50)
        lengths = [window.length for window in windower.feed(3000)]

        assert lengths[:6] == [50, 100, 200, 400, 512, 512]

    def test_windows_of_which_nothing_is_kept(self) -> None:
        with pytest.raises(UsageError, match="expected more than 66, twice the model's halo"):
            Windower(66, 33)
        with pytest.raises(UsageError, match="expected more than 33, the model's halo"):
            Windower(67, 33, 33)

    @pytest.mark.parametrize("halo", [0, 33, 84, 700])
    def test_default_size(self, halo: int) -> None:
        assert overhead(windows.default_size(halo), halo) <= 0.25

    def test_nothing_is_nothing(self) -> None:
        assert cut(0, 10, 2) == []


def network(mel: NDArray[np.float32], halo: int) -> NDArray[np.float32]:
    """(C, M, T) → (C, 3·T): a frame's samples depend on `halo` frames to either side, with zeros beyond the ends."""
    padded = np.pad(mel.sum(axis=1), ((0, 0), (halo, halo)))
    weights = np.random.default_rng(0).uniform(-1, 1, (2 * halo + 1, HOP))
    seen = np.lib.stride_tricks.sliding_window_view(padded, 2 * halo + 1, axis=-1)
    return (seen @ weights).reshape(len(mel), -1).astype(np.float32)


class TestVocode:
    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(1, 200), st.integers(0, 6), st.integers(1, 30), st.integers(1, 4), BLOCKS, st.integers(1, 2),
        st.one_of(st.none(), st.integers(1, 9)),
    )  # fmt: skip
    def test_windowed_equals_whole(
        self, frames: int, halo: int, extra: int, in_flight: int, blocks: list[int], channels: int, first: int | None
    ) -> None:
        mel = np.random.default_rng(frames).uniform(0, 1, (channels, 4, frames)).astype(np.float32)
        random = np.random.default_rng(0)

        def infer(piece: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
            assert piece.shape[-1] == window.length
            np.testing.assert_array_equal(piece, mel[..., window.first : window.first + window.length])
            time.sleep(random.uniform(0, 1e-3))  # results come in any order
            return network(piece, halo)

        workers = Workers()
        parts = (mel[..., begin:end] for begin, end in pieces(frames, blocks))
        windower = Windower(2 * halo + extra, halo, None if first is None else halo + first)
        made = list(streaming.vocode(parts, windower, infer, workers, in_flight))
        workers.close()

        np.testing.assert_allclose(np.concatenate(made, axis=-1), network(mel, halo), rtol=0, atol=1e-5)

    def test_no_more_under_way_than_asked_for(self) -> None:
        """Back-pressure reaches the source: frames are not read faster than audio is taken."""
        read, begun = [0], [0]

        def source() -> Iterator[NDArray[np.float32]]:
            for _ in range(100):
                read[0] += 10
                yield np.zeros((1, 4, 10), np.float32)

        def infer(piece: NDArray[np.float32], _: Window) -> NDArray[np.float32]:
            begun[0] += 1
            return network(piece, 0)

        stream = streaming.vocode(source(), Windower(10, 0), infer, Workers(), 3)
        time.sleep(0.2)
        assert begun[0] == 0, "a generator does nothing before it is asked"
        next(stream)
        time.sleep(0.2)
        assert begun[0] == 4, "one that was taken, and three under way"
        assert read[0] <= 70
        next(stream)
        time.sleep(0.2)
        assert begun[0] == 5
        stream.close()
        time.sleep(0.1)
        assert begun[0] <= 6

    def test_audio_is_not_held_back_by_frames_that_have_yet_to_come(self) -> None:
        more = threading.Event()

        def live() -> Iterator[NDArray[np.float32]]:
            yield np.ones((1, 4, 21), np.float32)
            assert more.wait(10), "the source was waited for"
            yield np.ones((1, 4, 9), np.float32)

        stream = streaming.vocode(live(), Windower(10, 0), lambda piece, _: network(piece, 0), Workers(), 4)
        first = [next(stream), next(stream)]
        more.set()

        assert sum(audio.shape[-1] for audio in [*first, *stream]) == 30 * HOP

    @pytest.mark.parametrize("where", ["source", "model"])
    def test_errors_come_after_the_audio_before_them(self, where: str) -> None:
        def source() -> Iterator[NDArray[np.float32]]:
            yield np.zeros((1, 4, 25), np.float32)
            if where == "source":
                raise InferenceError("from source")
            yield np.zeros((1, 4, 25), np.float32)

        def infer(piece: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
            if where == "model" and window.first >= 20:
                raise InferenceError("from model")
            return network(piece, 0)

        stream = streaming.vocode(source(), Windower(10, 0), infer, Workers(), 2)

        assert [next(stream).shape, next(stream).shape] == [(1, 30), (1, 30)]
        with pytest.raises(InferenceError, match=f"from {where}"):
            list(stream)

    def test_threads_are_reused(self) -> None:
        workers, seen = Workers(), set()
        for _ in range(50):
            workers.submit(lambda: seen.add(threading.get_ident())).result()
            time.sleep(0.001)
        workers.close()

        assert len(seen) <= 3
        with pytest.raises(UsageError, match="closed"):
            workers.submit(lambda: None).result()


class TestMelStream:
    @settings(max_examples=40, deadline=None)
    @given(
        st.integers(1, 9000),
        BLOCKS,
        st.sampled_from(
            [MelConfig(), MelConfig(24000, 800, 200, 20), MelConfig(8000, 64, 300, 8), MelConfig(100, 2, 1, 1)]
        ),
        st.integers(1, 3),
    )
    def test_equals_that_of_the_whole(self, samples: int, blocks: list[int], config: MelConfig, channels: int) -> None:
        wave = np.random.default_rng(samples).uniform(-1, 1, (channels, samples)).astype(np.float32)
        parts = [wave[:, begin:end] for begin, end in pieces(samples, [size * 20 for size in blocks])]

        made = np.concatenate(list(mel_blocks(parts, config)), axis=-1)

        assert made.shape == (channels, config.n_mels, config.frames(samples))
        for channel, mel in zip(wave, made, strict=True):
            np.testing.assert_allclose(mel, mel_spectrogram(channel, config), rtol=0, atol=1e-5)

    def test_nothing_is_nothing(self) -> None:
        empty: list[Any] = [np.zeros((1, 0), np.float32)]
        assert list(mel_blocks(empty, MelConfig())) == []
        with pytest.raises(ValueError, match="NaN"):
            list(mel_blocks([np.full((1, 5), np.nan)], MelConfig()))
