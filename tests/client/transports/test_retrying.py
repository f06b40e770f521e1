"""Which requests are repeated, with a transport that fails on demand; real servers: test_bad_day.py."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

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
from gomin_client.transports.mock import MockModel, MockTransport
from gomin_client.transports.retrying import RetryingTransport

PARAMETERS = {**ModelContract("gan", MelConfig(), 32).to_parameters(), "gomin.checkpoint_sha256.1": "ab"}
ANSWER = np.zeros(1, np.float32)
LONG_S = 3600  # for requests whose repetition succeeds, however busy the machine is


def flaky(*errors: Exception, parameters: Mapping[str, str] = PARAMETERS) -> MockTransport:
    """Raises what it is given, one after the other, then answers."""
    model = MockModel(lambda _: {"audio": ANSWER}, parameters)
    return MockTransport({"m": model}, url="flaky", errors=list(errors))


def give_another_model(transport: MockTransport, **changed: str) -> None:
    """Restart a server with other parameters."""
    model = transport.repository["m"]
    transport.repository = {**transport.repository, "m": replace(model, parameters={**model.parameters, **changed})}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(retrying, "LONGEST_DELAY_S", 0.01)


@pytest.mark.parametrize("error", [ServerError("gone"), ModelNotReadyError("loading")])
def test_unavailability_is_retried(error: ServerError) -> None:
    inner = flaky(error, error, error)

    assert RetryingTransport(inner, 0, LONG_S).infer("m", 1, {})["audio"] is ANSWER
    assert len(inner.calls) == 4


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
def test_other_errors_are_not_retried(error: GominError) -> None:
    inner = flaky(error, error)

    with pytest.raises(type(error)):
        RetryingTransport(inner, 10, 10).infer("m", 1, {})
    assert len(inner.calls) == 1
    with pytest.raises(type(error)):
        RetryingTransport(inner, 10, 10).describe("m")
    assert inner.described == 1


def test_retrying_ends() -> None:
    inner = flaky(*(ServerError("gone", "start it") for _ in range(10_000)))

    with pytest.raises(ServerError, match=r"gone: start it; tried for 0\.1 s"):
        RetryingTransport(inner, 0, 0.1).infer("m", 1, {})
    assert 1 < len(inner.calls) < 1000


@pytest.mark.parametrize("call", [lambda t: t.describe("m"), lambda t: t.models(), lambda t: t.infer("m", 1, {})])
def test_one_attempt_if_there_is_no_time(call: Callable[[RetryingTransport], object]) -> None:
    inner = flaky(ServerError("gone"))

    with pytest.raises(ServerError, match=r"^gone$"):
        call(RetryingTransport(inner, 0, 0))
    assert inner.errors == []


def test_the_first_contact_and_later_ones_have_their_own_times() -> None:
    with pytest.raises(ServerError):
        RetryingTransport(flaky(ServerError("gone")), 0, LONG_S).describe("m")
    assert RetryingTransport(flaky(ServerError("gone")), LONG_S, 0).describe("m").versions == (1,)


def test_one_warning_for_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(retrying.logger, "warning", lambda text, *values: warnings.append(text % values))
    transport = RetryingTransport(flaky(*(ServerError("gone", "start it") for _ in range(5))), 0, LONG_S)
    transport.infer("m", 1, {})
    transport.infer("m", 1, {})

    lost, found = warnings
    assert lost == f"gone; trying again for {LONG_S} s"
    assert found.startswith("flaky answers after ")


def test_closing_ends_retrying() -> None:
    inner = flaky(*(ServerError("gone") for _ in range(100_000)))
    transport = RetryingTransport(inner, 0, 3600)
    closing = threading.Timer(0.1, transport.close)
    closing.start()

    with pytest.raises(UsageError, match="connection to flaky has been closed"):
        transport.infer("m", 1, {})
    closing.join()
    assert inner.closed


@pytest.mark.parametrize("noticed", [True, False])
def test_another_model_is_refused_whether_the_outage_was_noticed_or_not(
    monkeypatch: pytest.MonkeyPatch, noticed: bool
) -> None:
    inner = flaky()
    transport = RetryingTransport(inner, 0, LONG_S)
    transport.describe("m")
    give_another_model(inner, **{"gomin.checkpoint_sha256.1": "cd"})
    if noticed:
        inner.fail(ServerError("gone"))
    else:
        monkeypatch.setattr(retrying, "SHORTEST_RESTART_S", -1.0)

    with pytest.raises(ContractError, match="another model m in version 1"):
        transport.infer("m", 1, {})


def test_a_new_version_beside_the_old_one_is_not_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = flaky()
    transport = RetryingTransport(inner, 0, 0)
    transport.describe("m")
    give_another_model(inner, **{"gomin.checkpoint_sha256.2": "cd"})
    monkeypatch.setattr(retrying, "SHORTEST_RESTART_S", -1.0)

    assert transport.infer("m", 1, {})["audio"] is ANSWER


class FakeTime:
    """A clock that only moves when somebody waits."""

    def __init__(self, rounds: int) -> None:
        self.now = 0.0
        self.rounds = rounds

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        """As that of an event that is set after `rounds` waits."""
        self.now += seconds
        self.rounds -= 1
        return self.rounds < 0

    def is_set(self) -> bool:
        return self.rounds < 0


def test_idle_servers_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several servers are compared while requests are made, and no more after 2 s without any."""
    clock = FakeTime(rounds=10)
    monkeypatch.setattr(retrying, "time", clock)
    inner = flaky()
    transport = RetryingTransport(inner, 0, 10)
    transport.describe("m")
    transport._closed = clock  # type: ignore[assignment]
    transport._requested_at = clock.now
    transport._watched = {("m", 1)}
    inner.described = 0

    transport._keep_comparing("m", 1)

    assert clock.now == 3
    assert inner.described == 2
    assert not transport._watched  # the next request starts another thread


def test_several_servers_are_compared_while_requests_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """All models that are called, also after a pause."""
    monkeypatch.setattr(retrying, "SHORTEST_RESTART_S", 0.01)
    inner = flaky()
    inner.servers = 2
    inner.repository = {**inner.repository, "other": inner.repository["m"]}
    with RetryingTransport(inner, 0, 10) as transport:
        for model in ("other", "m"):
            transport.describe(model)
            transport.infer(model, 1, {})
        while transport._watched:
            time.sleep(0.001)
        give_another_model(inner, **{"gomin.checkpoint_sha256.1": "cd"})

        def keep_inferring() -> None:
            while True:
                transport.infer("other", 1, {})
                transport.infer("m", 1, {})
                time.sleep(0.001)

        with pytest.raises(ContractError, match="another model m in version 1"):
            keep_inferring()


def test_a_transport_that_was_closed_during_a_comparison_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC raises ValueError for a call on a closed channel, in the thread that compares."""
    monkeypatch.setattr(retrying, "SHORTEST_RESTART_S", 0.0)
    transport = RetryingTransport(flaky(ValueError("closed channel")), 0, 10)
    transport._pinned["m"] = ModelInfo("m", (1,), PARAMETERS, 16)
    transport._requested_at = math.inf
    describe = transport._inner.describe

    def closed_meanwhile(model: str) -> ModelInfo:
        transport._closed.set()
        return describe(model)

    monkeypatch.setattr(transport._inner, "describe", closed_meanwhile)

    transport._keep_comparing("m", 1)


def test_delays_grow_to_a_limit_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    delays = [list(itertools.islice(retrying._delays(), 12)) for _ in range(50)]

    for delay in delays:
        assert all(0.5 * 0.1 * 2**n <= delay[n] <= 0.1 * 2**n for n in range(5))
        assert all(2.5 <= late <= 5 for late in delay[6:])
    assert len({delay[0] for delay in delays}) > 40
