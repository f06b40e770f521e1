"""gomin-client bench, on a real server: what it counts and what it says."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gomin_client import Vocoder
from gomin_client.cli.main import app
from gomin_client.contract.choices import MOST_CONCURRENT
from gomin_client.errors import AccessError, GominError, InferenceError, ServerError, UsageError
from gomin_client.tools import load_test
from gomin_client.tools.load_test import LoadResult
from gomin_client.transports.local import LocalTransport
from gomin_client.transports.mock import MockModel, MockTransport
from gomin_client.transports.sessions import Session
from gomin_client.transports.statistics import Statistics, settled
from tests.support import BIN, RunningServer, assert_fails, invoke

pytestmark = pytest.mark.long

COUNTED_WITHIN_S = 120  # after the answer, on a busy machine


def counted(vocoder: Vocoder, before: Statistics | None = None, requests: int = 0) -> Statistics:
    """What a server has counted, with at least so many requests more than `before`."""

    def is_enough(now: Statistics | None) -> bool:
        return now is not None and (before is None or now.since(before).requests >= requests)

    now = settled(vocoder.statistics, is_enough, COUNTED_WITHIN_S)
    assert now is not None
    return now


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_load(server: RunningServer, monkeypatch: pytest.MonkeyPatch, scheme: str, concurrency: int) -> None:
    monkeypatch.setattr(load_test, "settled", partial(settled, within_s=COUNTED_WITHIN_S))
    with Vocoder(getattr(server, scheme)) as vocoder:
        mel = load_test.make_mel(vocoder, 0.2)
        result = load_test.run_load(vocoder, mel, concurrency, duration_s=1)

    assert mel.shape == (128, 19)
    assert not result.errors
    assert len(result.latencies_s) >= concurrency
    assert result.counted is not None
    assert result.counted.requests == result.counted.inferences == len(result.latencies_s)  # nobody else was there
    assert result.batch is not None
    assert 1 <= result.batch <= concurrency
    assert result.audio_s == pytest.approx(len(result.latencies_s) * 19 * 256 / 24000)
    # as many as there are at a time fill the time
    assert sum(result.latencies_s) <= concurrency * result.elapsed_s
    assert result.elapsed_s >= 1
    assert result.queue_s is not None
    assert result.compute_s is not None
    assert result.queue_s + result.compute_s < np.mean(result.latencies_s)


def test_quantiles_and_ratios() -> None:
    counted = Statistics(200, 50, 1.0, 0.1, 4.0, 0.1, 100)
    result = LoadResult(4, [i / 100 for i in range(1, 102)], [], 60.0, 20.0, counted)

    assert result.times_real_time == 3
    assert result.quantiles_s == pytest.approx({50: 0.51, 95: 0.96, 99: 1.0})
    assert (result.queue_s, result.compute_s, result.batch) == (0.01, 0.04, 4.0)
    cells = ["4", "101", "3.00", "510", "960", "1000", "10", "40", "4.0"]
    assert load_test.row(result).split() == cells
    assert len(load_test.row(result)) == len(load_test.HEADER)


def test_failures_are_counted(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise InferenceError("out of order")

    with Vocoder(server.grpc) as vocoder:
        mel = load_test.make_mel(vocoder, 0.1)
        monkeypatch.setattr(vocoder, "vocoded", fail)
        result = load_test.run_load(vocoder, mel, 2, duration_s=0)

    assert result.errors == ["out of order"] * 2
    assert "2 failed" in load_test.row(result)
    assert result.to_dict()["errors"] == ["out of order"]


def test_what_was_measured_outlives_the_server(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has gone, one that was restarted and counts from 0 again, one of two that has not counted all."""
    counted = Statistics(9, 9, 9.0, 9.0, 9.0, 9.0, 9)
    restarted = Statistics(1, 1, 0.1, 0.1, 0.1, 0.1, 1)
    soon_as_many = Statistics(19, 19, 8.9, 9.0, 19.0, 9.0, 19)  # and counts more, in less time
    for after in (ServerError("gone"), InferenceError("unloaded"), restarted, soon_as_many, counted):
        answers = itertools.chain([counted, counted], itertools.repeat(after))

        def statistics(answers: Iterator[Statistics | GominError] = answers) -> Statistics:
            answer = next(answers)
            if isinstance(answer, GominError):
                raise answer
            return answer

        with Vocoder(server.grpc) as vocoder:
            mel = load_test.make_mel(vocoder, 0.1)
            monkeypatch.setattr(vocoder, "statistics", statistics)
            result = load_test.run_load(vocoder, mel, 1, duration_s=0)

        assert len(result.latencies_s) == 1
        assert result.counted is None
        assert result.to_dict()["server"] == {"queue_s": None, "compute_s": None, "batch": None}


def test_counts_are_read_when_they_rest_and_are_enough() -> None:
    late, busy = iter([1, 1, 2, 3, 3, 4]), itertools.count()

    assert settled(lambda: next(late), enough=lambda count: count >= 2) == 3
    assert settled(lambda: next(busy), within_s=0.25) >= 2  # other callers never let it rest


def test_failures_are_not_hurried(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ServerError("gone")

    with Vocoder(server.grpc) as vocoder:
        mel = load_test.make_mel(vocoder, 0.1)
        monkeypatch.setattr(vocoder, "vocoded", fail)
        result = load_test.run_load(vocoder, mel, 2, duration_s=1)

    assert 2 <= len(result.errors) <= 2 * (1 + 1 / load_test.PAUSE_AFTER_FAILURE_S)


def test_in_process_as_many_are_under_way_as_are_asked_for(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits in ONNX Runtime's place until all have come."""
    all_there = threading.Barrier(MOST_CONCURRENT)

    def run_session(names: list[str], *_: object) -> list[np.ndarray]:
        all_there.wait(timeout=120)
        return [np.zeros((1, 1, 256), np.float32) for _ in names]

    session = Session(SimpleNamespace(run=run_session), ["audio"], {}, nullcontext())
    mel = {"mel": np.zeros((1, 128, 1), np.float32)}
    with LocalTransport(repository) as transport, ThreadPoolExecutor(MOST_CONCURRENT) as callers:
        monkeypatch.setattr(transport, "_session", lambda *_: session)
        answers = list(callers.map(lambda _: transport.infer("gomin_gan", 1, mel), range(MOST_CONCURRENT)))

    assert len(answers) == MOST_CONCURRENT


@pytest.mark.parametrize("refusal", [AccessError("not yours"), InferenceError("not found")])
def test_a_server_need_not_tell_what_it_counts(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, refusal: GominError
) -> None:
    def refuse() -> None:
        raise refusal

    with Vocoder(server.grpc) as vocoder:
        monkeypatch.setattr(vocoder, "statistics", refuse)
        result = load_test.run_load(vocoder, load_test.make_mel(vocoder, 0.1), 1, duration_s=0)

    assert (len(result.latencies_s), result.errors, result.counted) == (1, [], None)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_refuses_durations_without_an_end(server: RunningServer, seconds: float) -> None:
    with Vocoder(server.grpc) as vocoder, pytest.raises(UsageError, match="expected a finite number"):
        load_test.run_load(vocoder, load_test.make_mel(vocoder, 0.1), 1, seconds)


def test_a_request_is_one_request_whatever_its_length(server: RunningServer) -> None:
    arguments = ["bench", "--url", server.grpc, "--audio", "3", "--duration", "0", "-c", "1", "--json"]
    with Vocoder(server.grpc) as vocoder:
        before = counted(vocoder)
        whole = invoke(app, *arguments)
        between = counted(vocoder, before, 2)
        cut = invoke(app, *arguments, "--window", "64")
        after = counted(vocoder, between, 5)

    assert (whole.returncode, cut.returncode) == (0, 0), whole.stderr + cut.stderr
    assert between.since(before).requests == 2  # the warm-up and one request
    assert after.since(between).requests > 4


def test_refuses_a_request_that_takes_much_memory(server: RunningServer) -> None:
    asked = ["bench", "--url", server.grpc, "--duration", "0", "-c", "1", "--audio", "61"]

    assert_fails(invoke(app, *asked), 2, "61 s of audio in one request", "--window")
    with Vocoder(server.grpc) as vocoder:
        assert load_test.prepare(vocoder, 512, 61)[0].window == 512


def test_refuses_a_request_that_the_model_does_not_take() -> None:
    vocoder = MockModel.vocoder(lambda mel: np.zeros((len(mel), 256 * mel.shape[-1]), np.float32))
    model = MockModel(vocoder.answer, {**vocoder.parameters, "gomin.max_frames": "900"})
    with Vocoder(MockTransport({"gomin_gan": model})) as opened:
        with pytest.raises(UsageError, match=r"938 frames, and the model takes at most 900 .* --window"):
            load_test.prepare(opened, None, 10)
        assert load_test.prepare(opened, None, 9)[0].window == 844
        assert load_test.prepare(opened, opened.window, 10)[0].window == 512


def test_the_command(server: RunningServer) -> None:
    result = invoke(app, "bench", "--url", server.grpc, "--audio", "0.2", "--duration", "0.5", "-c", "1", "-c", "3")

    assert result.returncode == 0, result.stderr
    title, header, *lines = result.stdout.splitlines()
    assert title == f"gomin_gan 1 at {server.grpc}, 0.2 s of audio per request"
    assert header.split()[:4] == ["in", "flight", "requests", "×"]
    assert [text.split()[0] for text in lines] == ["1", "3"]
    assert all("-" not in text for text in lines)


def test_diffusion_in_process_as_json(repository: Path) -> None:
    result = invoke(
        app,
        *("bench", "--url", f"local:{repository}", "--model", "diffusion", "--sampler", "fast"),
        *("--audio", "0.05", "--duration", "0", "-c", "2", "--json"),
    )

    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    (result,) = told.pop("levels")
    about = {"model": "gomin_diffusion", "version": 1, "url": f"local:{repository}", "audio_s": 0.05, "duration_s": 0.0}
    assert told == about
    assert (result["concurrency"], result["requests"], result["failed"]) == (2, 2, 0)
    assert result["server"] == {"queue_s": None, "compute_s": None, "batch": None}
    assert 0 < result["latency_s"]["p50"] <= result["latency_s"]["p99"] <= result["elapsed_s"]


def test_interrupted(server: RunningServer) -> None:
    command = [BIN / "gomin-client", "bench", "--url", server.grpc, "--audio", "0.2", "--duration", "0.3"]
    process = subprocess.Popen(
        [*command, *("-c", "1") * 3000], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)

    assert process.returncode == 128 + signal.SIGINT
    assert said == "gomin-client: interrupted; the lines above are complete\n"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 1e9])
def test_refuses_lengths_that_are_none(server: RunningServer, seconds: float) -> None:
    with Vocoder(server.grpc) as vocoder, pytest.raises(UsageError, match="of audio"):
        load_test.make_mel(vocoder, seconds)


def test_no_server() -> None:
    assert_fails(invoke(app, "bench", "--url", "grpc://127.0.0.1:9", "--retry-for", "0"), 3, "127.0.0.1:9")
