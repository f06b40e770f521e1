"""Runs of ONNX Runtime in this process: how many at a time, until when, and what ends them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gomin_client.native.library import find_library
from gomin_client.transports.sessions import Session, Sessions, _runs_at_a_time

LATER = time.monotonic() + 3600
CORES = len(os.sched_getaffinity(0))


class Slow:
    """An ONNX session whose runs end when they are told to."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.options: list[Any] = []

    def run(self, names: list[str], _: object, options: Any) -> list[str]:
        self.options.append(options)
        self.begun.release()
        assert self.may_end.acquire(timeout=120)
        return names


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    opened = Sessions()
    yield opened
    opened.close()


def in_thread(sessions: Sessions, session: Session, ends_at: float = LATER) -> tuple[threading.Thread, list[object]]:
    """A run in a thread of its own, and its result or error."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(sessions.run(session, {}, ends_at))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


def test_runs_wait_for_their_turn(sessions: Sessions) -> None:
    slow = Slow()
    session = Session(slow, ["audio"], {}, threading.Semaphore(1))
    runs = [in_thread(sessions, session) for _ in range(3)]
    for number in range(3):
        assert slow.begun.acquire(timeout=60)
        assert not slow.begun.acquire(timeout=0.1), "the next one began before the end of this one"
        assert sum(len(found) for _, found in runs) == number
        slow.may_end.release()
        deadline = time.monotonic() + 60
        while sum(len(found) for _, found in runs) == number and time.monotonic() < deadline:
            time.sleep(0.01)
    for thread, found in runs:
        thread.join(60)
        assert found == [{"audio": "audio"}]


def test_without_operators_of_our_own_they_run_at_the_same_time(sessions: Sessions) -> None:
    slow = Slow()
    runs = [in_thread(sessions, Session(slow, ["audio"], {}, nullcontext())) for _ in range(3)]
    for _ in runs:
        assert slow.begun.acquire(timeout=60)
    for _ in runs:
        slow.may_end.release()
    for thread, _ in runs:
        thread.join(60)


def test_the_deadline_includes_the_wait(sessions: Sessions) -> None:
    slow = Slow()
    session = Session(slow, ["audio"], {}, threading.Semaphore(1))
    first, _ = in_thread(sessions, session)
    assert slow.begun.acquire(timeout=60)

    with pytest.raises(TimeoutError):
        sessions.run(session, {}, time.monotonic() + 0.1)

    assert len(slow.options) == 1
    for _ in range(2):
        slow.may_end.release()
    first.join(60)
    assert slow.begun.acquire(timeout=60)
    assert slow.options[1].terminate, "ONNX Runtime must refuse a run that nobody waits for"
    assert not slow.options[0].terminate


def test_closing_ends_the_runs() -> None:
    sessions, slow = Sessions(), Slow()
    running, _ = in_thread(sessions, Session(slow, ["audio"], {}, nullcontext()))
    assert slow.begun.acquire(timeout=60)
    told: list[bool] = []

    def end_when_told() -> None:
        deadline = time.monotonic() + 60
        while not slow.options[0].terminate and time.monotonic() < deadline:
            time.sleep(0.01)
        told.append(slow.options[0].terminate)
        slow.may_end.release()

    ending = threading.Thread(target=end_when_told)
    ending.start()
    sessions.close()
    for thread in (ending, running):
        thread.join(60)

    assert told == [True]


@pytest.mark.parametrize(("threads", "expected"), [(0, 1), (1, CORES), (CORES, 1), (CORES + 1, 1)])
def test_runs_at_a_time_have_a_core_for_each_thread(threads: int, expected: int) -> None:
    assert _runs_at_a_time(threads) == expected


def test_only_models_with_our_operators_take_turns(sessions: Sessions, tiny_repository: Path) -> None:
    path = tiny_repository / "gomin_gan" / "1" / "model.onnx"
    assert isinstance(sessions.open(path, 0, None).turn, nullcontext)
    library = find_library()
    if library is None:
        pytest.skip("no compiled operators here")
    session = sessions.open(path, 0, library)  # the model does not use them
    assert isinstance(session.turn, threading.Semaphore)
    audio = sessions.run(session, {"mel": np.zeros((1, 128, 4), np.float32)}, LATER)["audio"]
    assert audio.shape[:2] == (1, 1)
