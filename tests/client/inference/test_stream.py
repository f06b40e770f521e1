"""Vocoding in windows while frames arrive: equals the whole, with back-pressure, in order."""

from __future__ import annotations

import gc
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gomin_client.errors import InferenceError, UsageError
from gomin_client.inference.stream import Tally, Workers, trimmed, vocode
from gomin_client.inference.windows import Window, Windower
from tests.client.inference.pieces import pieces

HOP = 3
BLOCKS = st.lists(st.integers(1, 50), min_size=1, max_size=5)


def network(mel: NDArray[np.float32], halo: int) -> NDArray[np.float32]:
    """(C, M, T) → (C, 3·T): a frame's samples depend on `halo` frames to either side, with zeros beyond the ends."""
    padded = np.pad(mel.sum(axis=1), ((0, 0), (halo, halo)))
    weights = np.random.default_rng(0).uniform(-1, 1, (2 * halo + 1, HOP))
    seen = np.lib.stride_tricks.sliding_window_view(padded, 2 * halo + 1, axis=-1)
    return (seen @ weights).reshape(len(mel), -1).astype(np.float32)


def noting_its_end(closed: threading.Event) -> Iterator[NDArray[np.float32]]:
    """A mel, whose reader sets the event when it closes it."""
    try:
        yield np.zeros((1, 4, 1000), np.float32)
    finally:
        closed.set()


class TestVocode:
    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(1, 200), st.integers(0, 6), st.integers(1, 30), st.integers(1, 4), BLOCKS, st.integers(1, 2),
        st.one_of(st.none(), st.integers(1, 9)), st.booleans(),
    )  # fmt: skip
    def test_windowed_equals_whole(
        self, frames: int, halo: int, extra: int, in_flight: int, blocks: list[int], channels: int, first: int | None,
        as_list: bool,
    ) -> None:  # fmt: skip
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
        made = list(vocode(list(parts) if as_list else parts, windower, infer, workers, in_flight))
        workers.close()

        np.testing.assert_allclose(np.concatenate(made, axis=-1), network(mel, halo), rtol=0, atol=1e-5)

    def test_no_more_in_flight_than_asked_for(self) -> None:
        """Back-pressure reaches the source: frames are not read faster than audio is taken."""
        read, begun = [0], [0]

        def source() -> Iterator[NDArray[np.float32]]:
            for _ in range(100):
                read[0] += 10
                yield np.zeros((1, 4, 10), np.float32)

        def infer(piece: NDArray[np.float32], _: Window) -> NDArray[np.float32]:
            begun[0] += 1
            return network(piece, 0)

        def begun_after_a_while(expected: int) -> int:
            deadline = time.monotonic() + 60
            while begun[0] < expected and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1)  # for more than was expected
            return begun[0]

        stream = vocode(source(), Windower(10, 0), infer, Workers(), 3)
        assert begun_after_a_while(0) == 0, "a generator does nothing before it is asked"
        next(stream)
        assert begun_after_a_while(4) == 4, "one that was taken, and three in flight"
        assert read[0] <= 70
        next(stream)
        assert begun_after_a_while(5) == 5
        stream.close()
        assert begun_after_a_while(0) <= 6

    def test_a_list_is_read_without_a_thread_and_one_window_vocoded_in_the_callers(self) -> None:
        started: list[str] = []

        def infer(piece: NDArray[np.float32], _: Window) -> NDArray[np.float32]:
            started.append(threading.current_thread().name)
            return network(piece, 0)

        mel = [np.zeros((1, 4, 6), np.float32), np.zeros((1, 4, 4), np.float32)]
        list(vocode(mel, Windower(10, 0), infer, Workers(), 2))
        assert started == [threading.current_thread().name]
        list(vocode(mel, Windower(5, 0), infer, Workers(), 2))
        assert started[1:] == ["gomin-request"] * 2

    def test_a_list_has_no_more_windows_in_flight_than_asked_for(self) -> None:
        begun: queue.SimpleQueue[int] = queue.SimpleQueue()
        may_end = threading.Event()

        def infer(piece: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
            begun.put(window.first)
            assert window.first == 0 or may_end.wait(60)
            return network(piece, 0)

        stream = vocode([np.zeros((1, 4, 100), np.float32)], Windower(10, 0), infer, Workers(), 3)
        next(stream)
        assert sorted(begun.get(timeout=60) for _ in range(4)) == [0, 10, 20, 30], "one taken, three in flight"
        time.sleep(0.1)  # for more than was expected
        assert begun.empty()
        may_end.set()
        assert len(list(stream)) == 9

    def test_the_first_short_windows_are_alone(self) -> None:
        begun: queue.SimpleQueue[int] = queue.SimpleQueue()
        may_end = threading.Semaphore(0)

        def infer(piece: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
            begun.put(window.length)
            assert may_end.acquire(timeout=60)
            return network(piece, 0)

        source = (np.zeros((1, 4, 10), np.float32) for _ in range(10))
        stream = vocode(source, Windower(20, 0, 5), infer, Workers(), 2)
        audio: list[NDArray[np.float32]] = []
        thread = threading.Thread(target=lambda: audio.extend(stream))
        thread.start()
        for length in (5, 10):
            assert begun.get(timeout=60) == length
            time.sleep(0.1)  # for another one, which would be wrong
            assert begun.empty()
            may_end.release()
        assert [begun.get(timeout=60) for _ in range(2)] == [20, 20], "those of full size are not"
        for _ in range(10):
            may_end.release()
        thread.join(60)
        assert sum(part.shape[-1] for part in audio) == 100 * HOP

    def test_leaving_early_ends_the_reading_thread(self) -> None:
        """The thread waits for a free place in flight, which never comes."""
        closed = threading.Event()
        second = threading.Event()

        def infer(piece: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
            if window.first > 0:
                second.set()
            return network(piece, 0)

        stream = vocode(noting_its_end(closed), Windower(10, 0), infer, Workers(), 1)
        next(stream)
        assert second.wait(60)
        time.sleep(0.1)  # until the thread waits for a place, which the second window has taken
        stream.close()

        assert closed.wait(60), "the thread still holds the source"

    def test_an_error_of_the_model_closes_the_source_at_once(self) -> None:
        """Not when Python looks for cycles, which it may never do."""
        closed = threading.Event()

        def infer(piece: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
            if window.first > 0:
                raise InferenceError("from model")
            return network(piece, 0)

        gc.disable()
        try:
            with suppress(InferenceError):
                list(vocode(noting_its_end(closed), Windower(10, 0), infer, Workers(), 1))
            assert closed.wait(60)
        finally:
            gc.enable()

    def test_audio_is_not_held_back_by_frames_that_have_yet_to_come(self) -> None:
        more = threading.Event()

        def live() -> Iterator[NDArray[np.float32]]:
            yield np.ones((1, 4, 21), np.float32)
            assert more.wait(60), "the source was waited for"
            yield np.ones((1, 4, 9), np.float32)

        stream = vocode(live(), Windower(10, 0), lambda piece, _: network(piece, 0), Workers(), 4)
        first = [next(stream), next(stream)]
        more.set()

        assert sum(audio.shape[-1] for audio in [*first, *stream]) == 30 * HOP

    def test_an_error_of_a_list_comes_after_the_audio_before_it(self) -> None:
        begun: list[int] = []

        def infer(piece: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
            begun.append(window.first)
            if window.first == 10:
                raise InferenceError("from model")
            return network(piece, 0)

        stream = vocode([np.zeros((1, 4, 100), np.float32)], Windower(10, 0), infer, Workers(), 1)
        assert next(stream).shape == (1, 30)
        with pytest.raises(InferenceError, match="from model"):
            list(stream)
        assert begun == [0, 10], "nothing is submitted after an error"

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

        stream = vocode(source(), Windower(10, 0), infer, Workers(), 2)

        assert [next(stream).shape, next(stream).shape] == [(1, 30), (1, 30)]
        with pytest.raises(InferenceError, match=f"from {where}"):
            list(stream)


def test_an_idle_thread_is_reused() -> None:
    workers, seen = Workers(most=2), set()
    for _ in range(50):
        workers.submit(lambda: seen.add(threading.get_ident())).result()
    workers.close()

    assert len(seen) <= 2


def test_tasks_run_at_the_same_time() -> None:
    workers, both = Workers(), threading.Barrier(2, timeout=60)
    futures = [workers.submit(both.wait) for _ in range(2)]

    assert sorted(future.result() for future in futures) == [0, 1]


def test_closed_workers_take_no_tasks() -> None:
    workers = Workers()
    workers.close()

    with pytest.raises(UsageError, match="closed"):
        workers.submit(lambda: None).result()


@pytest.mark.parametrize("close", [True, False])
def test_threads_end_when_it_is_closed_or_dropped(close: bool) -> None:
    workers = Workers()
    thread = workers.submit(threading.current_thread).result()
    if close:
        workers.close()
    else:
        del workers
        gc.collect()

    thread.join(60)
    assert not thread.is_alive()


class TestTally:
    def test_it_counts_and_keeps_the_first_channel(self) -> None:
        blocks = [np.full((2, length), length, np.float32) for length in (3, 1)]
        tally = Tally(blocks, keep=True)

        assert list(tally) == blocks
        assert tally.samples == 4
        np.testing.assert_array_equal(tally.first_channel(), [3, 3, 3, 1])

    def test_trimming_to_what_has_been_counted(self) -> None:
        recorded = Tally([np.zeros((2, length), np.float32) for length in (4, 1)])
        parts = trimmed((np.zeros((2, 3), np.float32) for _ in recorded), recorded)
        assert [part.shape[-1] for part in parts] == [3, 2]
