"""Chains that are followed step by step, with streams that break; whole ones: tests/server/test_diffusion_stream.py."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gomin_client import Connection, Vocoder
from gomin_client.errors import ContractError, GominError, InferenceError, ServerError
from gomin_client.transports.local import LocalTransport
from gomin_client.transports.wrapper import TransportWrapper

MEL = np.random.default_rng(0).uniform(0, 1, (32, 12)).astype(np.float32)
SEED = 3
STEPS = 5  # of the default chain of `streaming`


class Breaking(TransportWrapper):
    """Its streams end after so many answers each, with these errors; None: as if nothing were missing."""

    def __init__(self, repository: Path, *ends: tuple[int, GominError | None]) -> None:
        super().__init__(LocalTransport(repository))
        self.ends = list(ends)
        self.streams = 0

    def infer_stream(self, *arguments: Any, **options: Any) -> Generator[dict[str, Any]]:
        self.streams += 1
        answers = super().infer_stream(*arguments, **options)
        number, error = self.ends.pop(0) if self.ends else (STEPS, None)
        for _ in range(number):
            yield next(answers)
        answers.close()
        if error is not None:
            raise error


def steps(transport: TransportWrapper, retry_for_s: float = 60) -> list[tuple[int, bytes]]:
    with Vocoder(transport, "diffusion", connection=Connection(retry_for_s=retry_for_s)) as vocoder:
        return [(step.number, step.audio.tobytes()) for step in vocoder.synthesize_steps(MEL, SEED)]


def test_a_lost_stream_is_repeated_without_the_steps_that_were_passed_on(streaming: Path) -> None:
    lost = ServerError("breaking: lost")
    breaking = Breaking(streaming, (0, lost), (2, lost), (1, lost), (4, lost))

    found = steps(breaking)

    assert [number for number, _ in found] == list(range(1, STEPS + 1))
    assert found == steps(Breaking(streaming))
    assert breaking.streams == 5


def test_other_errors_and_no_retries(streaming: Path) -> None:
    for error, retry_for_s in ((ContractError("breaking: shape"), 60), (ServerError("breaking: lost"), 0)):
        breaking = Breaking(streaming, (2, error))
        with pytest.raises(type(error), match="breaking"):
            steps(breaking, retry_for_s)
        assert breaking.streams == 1


@pytest.mark.parametrize(("number", "words"), [(0, "sent 0 of all steps"), (3, "sent 3 of 5 steps")])
def test_an_incomplete_stream_is_an_error(streaming: Path, number: int, words: str) -> None:
    with pytest.raises(InferenceError, match=words):
        steps(Breaking(streaming, (number, None)))


def test_no_chain_is_begun_and_none_goes_on_once_nobody_wants_it(streaming: Path) -> None:
    breaking, ended = Breaking(streaming), threading.Event()
    with Vocoder(breaking, "diffusion") as vocoder:
        following = vocoder.until(ended).synthesize_steps(MEL, SEED)
        assert next(following).number == 1
        ended.set()
        with pytest.raises(InferenceError, match="cancelled"):
            next(following)
        with pytest.raises(InferenceError, match="cancelled"):
            next(vocoder.until(ended).synthesize_steps(MEL, SEED))
    assert breaking.streams == 1


def test_the_chain_has_ended_when_its_result_is_passed_on(streaming: Path) -> None:
    breaking = Breaking(streaming)
    ended: list[bool] = []

    def noticing(*arguments: Any, **options: Any) -> Generator[dict[str, Any]]:
        try:
            yield from TransportWrapper.infer_stream(breaking, *arguments, **options)
        finally:
            ended.append(True)

    breaking.infer_stream = noticing  # type: ignore[method-assign]
    with Vocoder(breaking, "diffusion") as vocoder:
        followed = vocoder.step_followed([MEL[np.newaxis]], SEED, stop_after=2)
        next(followed)
        assert ended == [True]
