"""Answers while they are computed: callers who go away, errors in the middle, places and deadlines."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from gomin_client import Vocoder
from gomin_client.transports.statistics import settled
from gomin_gateway import access
from gomin_gateway.settings import Limits
from tests.gateway.running import Gated, Gateway, answer_of, running, wait_for
from tests.support import RunningServer


def wav(seconds: float, *, rate: int = 24000) -> bytes:
    file = io.BytesIO()
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, round(rate * seconds))
    soundfile.write(file, wave, rate, format="WAV")
    return file.getvalue()


def test_audio_comes_before_the_rest_is_computed() -> None:
    model = Gated()
    with running(model.transport) as gateway:
        connection = gateway.connect()
        connection.request("POST", "/v1/reconstruct?stream=1&window=100&format=raw", wav(10))
        model.let(1)
        response = connection.getresponse()
        first = response.read(2 * 256 * 16)  # the first window has 16 frames that are kept
        heard_after = model.calls
        model.let_all()
        rest = response.read()
    assert heard_after <= 3  # one was answered, two may be in flight
    assert len(first + rest) == 2 * 10 * 24000
    assert model.calls > 20


@pytest.mark.parametrize("stream", [0, 1])
def test_a_caller_who_goes_away_stops_the_work(stream: int) -> None:
    model = Gated()
    with running(model.transport, Limits(concurrent=1)) as gateway:
        connection = gateway.connect()
        connection.request("POST", f"/v1/reconstruct?stream={stream}&window=100", wav(20))
        model.let(3)
        if stream:
            response = connection.getresponse()
            response.read(1000)
            response.close()
        wait_for(lambda: model.calls == 5)  # two are in flight
        connection.close()
        wait_for(lambda: gateway.count(499) == 1)
        assert gateway.service.taken == 1  # its requests are still in flight
        gateway.post("/v1/analyze", wav(1)).assert_problem(429, "busy")
        model.let_all()
        gateway.wait_until_idle()
        assert model.calls == 5
        assert gateway.post("/v1/analyze", wav(1)).status == 200


def test_triton_computes_no_more_for_a_caller_who_went_away(gateway: Gateway, server: RunningServer) -> None:
    """300 windows would follow."""
    with Vocoder(server.grpc) as vocoder:
        connection = gateway.connect()
        connection.request("POST", "/v1/reconstruct?stream=1&window=40", wav(45))
        response = connection.getresponse()
        response.read(100)
        response.close()
        connection.close()
        before = settled(vocoder.statistics)
        gateway.wait_until_idle()
        after = settled(vocoder.statistics)
    assert before is not None
    assert after is not None
    assert after.since(before).requests < 150


def test_an_error_in_the_middle_breaks_the_answer_off() -> None:
    """Its end is missing, so that nobody takes it for complete."""
    file = io.BytesIO()
    wave = np.zeros(20 * 24000, np.float32)
    wave[-1] = np.nan
    soundfile.write(file, wave, 24000, format="WAV", subtype="FLOAT")
    model = Gated()
    model.let_all()
    with running(model.transport, Limits(concurrent=1)) as gateway:
        connection = gateway.connect()
        connection.request("POST", "/v1/reconstruct?stream=1&window=100", file.getvalue())
        response = connection.getresponse()
        assert response.status == 200
        with pytest.raises(IncompleteRead):
            response.read()
        gateway.wait_until_idle()
        problem = gateway.post("/v1/reconstruct", file.getvalue())
        problem.assert_problem(422, "unreadable-file", "the body: contains NaN or infinite samples")


def test_a_deadline_is_kept_before_the_model_answers() -> None:
    model = Gated()
    limits = Limits(deadline_s=500, concurrent=1)
    with running(model.transport, limits) as gateway, gateway.asking("/v1/reconstruct", wav(1)) as connection:
        wait_for(lambda: model.calls)
        gateway.pass_time(500)
        answer_of(connection).assert_problem(504, "deadline", "longer than 500 s")
        assert gateway.service.taken == 1
        busy = gateway.post("/v1/reconstruct", wav(1))
        busy.assert_problem(429, "busy", "try again later")
        assert busy.headers["retry-after"] == "1"
        model.let_all()
        gateway.wait_until_idle()


def test_the_log_names_the_deadline_that_broke_an_answer_off(monkeypatch: pytest.MonkeyPatch) -> None:
    records: list[Any] = []
    monkeypatch.setattr(access.logger, "info", lambda *_, extra: records.append(extra["facts"]))
    model = Gated()
    path = "/v1/reconstruct?stream=1&window=100"
    with running(model.transport, Limits(deadline_s=500)) as gateway, gateway.asking(path, wav(20)) as connection:
        model.let(1)
        response = connection.getresponse()
        assert response.status == 200
        gateway.pass_time(500)
        with pytest.raises(IncompleteRead):
            response.read()
        model.let_all()
        gateway.wait_until_idle()
    assert [(facts["status"], facts["problem"]) for facts in records] == [(200, "deadline")]


def test_places_are_free_when_an_answer_has_been_read() -> None:
    model = Gated()
    model.let_all()
    with running(model.transport, Limits(concurrent=1)) as gateway:
        for _ in range(10):
            for query in ({}, {"stream": 1}, {"steps": 3}):
                answer = gateway.post("/v1/reconstruct", wav(0.5), **query)
                assert answer.status == (400 if "steps" in query else 200), answer.body


def test_several_callers_at_a_time() -> None:
    model = Gated()
    model.let_all()
    statuses = []
    with running(model.transport, Limits(concurrent=8)) as gateway:
        callers = [
            threading.Thread(target=lambda: statuses.append(gateway.post("/v1/reconstruct", wav(2)).status))
            for _ in range(8)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert statuses == [200] * 8


def test_requests_in_flight_are_finished_when_it_is_stopped() -> None:
    model = Gated()
    with running(model.transport) as gateway:
        connection = gateway.connect()
        connection.request("POST", "/v1/reconstruct", wav(3))
        wait_for(lambda: model.calls)
        gateway.server.should_exit = True
        wait_for(lambda: not any(server.is_serving() for server in gateway.server.servers))
        with pytest.raises(ConnectionError):
            gateway.call("GET", "/healthz")
        model.let_all()
        response = connection.getresponse()
        assert (response.status, len(response.read()) > 100_000) == (200, True)
    assert not gateway.thread.is_alive()


def test_a_gateway_that_is_stopped_does_not_wait_forever() -> None:
    model = Gated()
    with running(model.transport, replace(Limits(), drain_s=0.2)) as gateway:
        connection = gateway.connect()
        connection.request("POST", "/v1/reconstruct", wav(3))
        wait_for(lambda: model.calls)
        gateway.server.should_exit = True
        wait_for(lambda: model.transport.closed)
        model.let_all()  # as a real transport, whose requests end with an error when it is closed


def test_temporary_files_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = Gated()
    model.let_all()
    with running(model.transport) as gateway:
        for path, body in (("/v1/reconstruct", wav(1)), ("/v1/analyze", wav(1)), ("/v1/synthesize", b"x")):
            gateway.post(path, body)
        gateway.post("/v1/reconstruct", wav(1), stream=1)
        gateway.wait_until_idle()
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "gone").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone/missing"))
        gateway.post("/v1/analyze", wav(1)).assert_problem(507, "no-space", "no room")
        gateway.wait_until_idle()
