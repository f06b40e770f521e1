"""What is tried again and what is not, with a transport that fails on demand; real servers: test_bad_day.py."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomin_client.contract.model import ModelContract
from gomin_client.errors import (
    AccessError,
    ContractError,
    DeadlineError,
    GominError,
    InferenceError,
    ModelNotReadyError,
    ServerError,
    UnknownModelError,
    UsageError,
)
from gomin_client.mel.features import MelConfig
from gomin_client.transports import retrying
from gomin_client.transports.base import ModelInfo
from gomin_client.transports.connection import Connection
from gomin_client.transports.retrying import RetryingTransport

PARAMETERS = {**ModelContract("gan", MelConfig(), 33).to_parameters(), "gomin.checkpoint_sha256.1": "ab"}
ANSWER = {"audio": np.zeros(1)}


class Flaky:
    """Raises what it is given, one after the other, then answers."""

    url = "flaky"
    servers = 1

    def __init__(self, *errors: GominError, parameters: list[Mapping[str, str]] | None = None) -> None:
        self.errors = list(errors)
        self.parameters = parameters or [PARAMETERS]
        self.calls = 0
        self.closed = False

    def models(self) -> list[str]:
        self._fail()
        return ["m"]

    def describe(self, model: str) -> ModelInfo:
        self._fail()
        parameters = self.parameters.pop(0) if len(self.parameters) > 1 else self.parameters[0]
        return ModelInfo(model, (1,), parameters, 4)

    def infer(self, *_: Any) -> dict[str, Any]:
        self._fail()
        return ANSWER

    def statistics(self, model: str, version: int) -> None:
        return None

    def close(self) -> None:
        self.closed = True

    def _fail(self) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(retrying, "LONGEST_DELAY_S", 0.01)


@pytest.mark.parametrize("error", [ServerError("gone"), ModelNotReadyError("loading")])
def test_what_is_unavailable_is_tried_again(error: ServerError) -> None:
    inner = Flaky(error, error, error)

    assert RetryingTransport(inner, 0, 10).infer("m", 1, {}) is ANSWER
    assert inner.calls == 4


@pytest.mark.parametrize(
    "error",
    [
        AccessError("token"),
        ContractError("shape"),
        DeadlineError("slow"),
        InferenceError("NaN"),
        UnknownModelError("m"),
    ],
)
def test_what_is_wrong_is_not(error: GominError) -> None:
    inner = Flaky(error)

    with pytest.raises(type(error)):
        RetryingTransport(inner, 10, 10).infer("m", 1, {})
    assert inner.calls == 1
    with pytest.raises(type(error)):
        RetryingTransport(Flaky(error), 10, 10).describe("m")


def test_patience_ends() -> None:
    inner = Flaky(*(ServerError("gone", "start it") for _ in range(10_000)))

    with pytest.raises(ServerError, match=r"gone: start it; tried for 0\.1 s"):
        RetryingTransport(inner, 0, 0.1).infer("m", 1, {})
    assert 5 < inner.calls < 100


def test_no_patience() -> None:
    for call in (lambda t: t.describe("m"), lambda t: t.models(), lambda t: t.infer("m", 1, {})):
        inner = Flaky(ServerError("gone"))
        with pytest.raises(ServerError, match=r"^gone$"):
            call(RetryingTransport(inner, 0, 0))
        assert inner.calls == 1


def test_waiting_and_retrying_are_two_things() -> None:
    with pytest.raises(ServerError):
        RetryingTransport(Flaky(ServerError("gone")), 0, 10).describe("m")
    assert RetryingTransport(Flaky(ServerError("gone")), 10, 0).describe("m").versions == (1,)


def test_one_warning_for_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(retrying.logger, "warning", lambda text, *values: warnings.append(text % values))
    transport = RetryingTransport(Flaky(*(ServerError("gone", "start it") for _ in range(5))), 0, 10)
    transport.infer("m", 1, {})
    transport.infer("m", 1, {})

    lost, found = warnings
    assert lost == "gone; trying again for 10 s"
    assert found.startswith("flaky answers after 0.")


def test_closing_ends_it_at_once() -> None:
    inner = Flaky(*(ServerError("gone") for _ in range(10_000)))
    transport = RetryingTransport(inner, 0, 60)
    threading.Timer(0.1, transport.close).start()

    with pytest.raises(UsageError, match="connection to flaky has been closed"):
        transport.infer("m", 1, {})
    assert inner.closed


def test_another_model_is_noticed_whether_the_outage_was_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {**PARAMETERS, "gomin.checkpoint_sha256.1": "cd"}
    for errors in ([], [ServerError("gone")]):
        inner = Flaky(parameters=[PARAMETERS, other])
        transport = RetryingTransport(inner, 0, 10)
        transport.describe("m")
        inner.errors = list(errors)
        if not errors:
            monkeypatch.setattr(retrying, "SHORTEST_RESTART_S", -1.0)
        with pytest.raises(ContractError, match="another model m in version 1"):
            transport.infer("m", 1, {})
        monkeypatch.undo()


def test_a_new_version_beside_the_old_one_is_not_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Flaky(parameters=[PARAMETERS, {**PARAMETERS, "gomin.checkpoint_sha256.2": "cd"}])
    transport = RetryingTransport(inner, 0, 0)
    transport.describe("m")
    monkeypatch.setattr(retrying, "SHORTEST_RESTART_S", -1.0)

    assert transport.infer("m", 1, {}) is ANSWER


def test_delays_grow_to_a_limit_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    delays = [list(itertools.islice(retrying._delays(), 12)) for _ in range(50)]

    for delay in delays:
        assert all(0.5 * 0.1 * 2**n <= delay[n] <= 0.1 * 2**n for n in range(5))
        assert all(2.5 <= late <= 5 for late in delay[6:])
    assert len({delay[0] for delay in delays}) > 40


@given(st.floats(0, 1e5), st.integers(1, 1000))
def test_deadlines_grow_with_the_work(seconds: float, steps: int) -> None:
    connection = Connection()

    assert connection.deadline(0) == 60
    assert connection.deadline(seconds + 1, steps) > connection.deadline(seconds, steps)
    assert connection.deadline(seconds + 1, steps + 1) > connection.deadline(seconds + 1, steps)
    assert Connection(timeout_s=7).deadline(seconds, steps) == 7
