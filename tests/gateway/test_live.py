"""/v1/stream: a WebSocket on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import soundfile
from websockets.asyncio.client import ClientConnection as AsyncConnection
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from gomin_client import MockModel, MockTransport, Vocoder
from gomin_gateway.settings import ApiKeys, Limits
from tests.gateway.running import TWO_ROUNDINGS, WAIT_S, Gated, Gateway, running, wait_for
from tests.gateway.test_answers import wav
from tests.support import EXAMPLES, RunningServer

# as long as it takes: the client of websockets gives up after seconds
PATIENT = {"open_timeout": WAIT_S, "ping_interval": None, "proxy": None}


def connected(gateway: Gateway, **settings: Any) -> ClientConnection:
    """A session whose first message has not been sent."""
    return connect(f"ws://127.0.0.1:{gateway.port}/v1/stream", max_size=None, **PATIENT, **settings)


@contextmanager
def session(gateway: Gateway, **start: Any) -> Iterator[ClientConnection]:
    """A session whose first message has been sent."""
    with connected(gateway) as socket:
        socket.send(json.dumps({"type": "start", **start}))
        yield socket


def received(socket: ClientConnection) -> tuple[bytes, dict[str, Any]]:
    """All samples, and the last message."""
    audio = b""
    while isinstance(message := socket.recv(WAIT_S), bytes):
        audio += message
    return audio, json.loads(message)


def frames(mel: np.ndarray) -> bytes:
    return np.ascontiguousarray(mel.T, "<f4").tobytes()


def assert_refused(socket: ClientConnection, status: int, kind: str, words: str, code: int) -> None:
    _, problem = received(socket)
    assert (problem["status"], problem["type"]) == (status, f"urn:gomin:problem:{kind}"), problem
    assert words in problem["detail"]
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(WAIT_S)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, kind)


def test_mel_frames_make_what_synthesize_makes(gateway: Gateway, server: RunningServer) -> None:
    mel = np.random.default_rng(1).uniform(0, 1, (128, 200)).astype(np.float32)
    with session(gateway, input="mel", window=64) as socket:
        ready = json.loads(socket.recv(WAIT_S))
        assert (ready["type"], ready["model"], ready["version"]) == ("ready", "gomin_gan", 1)
        assert (ready["n_mels"], ready["hop_length"], ready["sample_rate"]) == (128, 256, 24000)
        for first in range(0, 100, 7):
            socket.send(frames(mel[:, first : min(first + 7, 100)]))
        early = socket.recv(WAIT_S)  # before the other half is sent
        assert isinstance(early, bytes)
        socket.send(frames(mel[:, 100:]))
        socket.send('{"type": "end"}')
        audio, end = received(socket)
    made = np.frombuffer(early + audio, "<f4")
    assert end == {"type": "end", "samples": len(made)}
    with Vocoder(server.grpc) as vocoder:
        np.testing.assert_allclose(made, vocoder.synthesize(mel), rtol=0, atol=TWO_ROUNDINGS)


def test_audio_makes_what_reconstruct_makes(gateway: Gateway, server: RunningServer) -> None:
    samples, rate = soundfile.read(EXAMPLES[0], dtype="int16")
    with session(
        gateway, input="audio", input_format="int16", output_format="int16", sample_rate=rate, window=64
    ) as socket:
        socket.recv(WAIT_S)
        for first in range(0, len(samples), 5000):
            socket.send(samples[first : first + 5000].tobytes())
        socket.send('{"type": "end"}')
        audio, end = received(socket)
    made = np.frombuffer(audio, "<i2") / 32767
    with Vocoder(server.grpc) as vocoder:
        expected = vocoder.reconstruct((samples / 32768).astype(np.float32), rate)
    assert end["samples"] == len(made) == len(expected)
    np.testing.assert_allclose(made, np.clip(expected, -1, 1), rtol=0, atol=1 / 32767)


def test_a_chain_and_its_seed(gateway: Gateway, server: RunningServer) -> None:
    chain = {"model": "diffusion", "sampler": "ddim", "timesteps": "40,10", "seed": 2**63}
    mel = np.random.default_rng(1).uniform(0, 1, (32, 50)).astype(np.float32)
    with session(gateway, input="mel", **chain) as socket:
        ready = json.loads(socket.recv(WAIT_S))
        socket.send(frames(mel))
        socket.send('{"type": "end"}')
        audio, _ = received(socket)
    assert ready["seed"] == 2**63
    assert ready["sampling"] == {"sampler": "ddim", "steps": 2, "schedule": "linear", "timesteps": "40,10"}
    with Vocoder(server.grpc, "diffusion", sampler="ddim", timesteps="40,10") as vocoder:
        expected = vocoder.synthesize(mel, 2**63)
    np.testing.assert_allclose(np.frombuffer(audio, "<f4"), expected, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def quick() -> Iterator[Gateway]:
    model = Gated()
    model.let_all()
    with running(model.transport, Limits(audio_s=5)) as made:
        yield made


def test_no_frames_at_all(quick: Gateway) -> None:
    with session(quick, input="mel") as socket:
        socket.recv(WAIT_S)
        socket.send('{"type": "end"}')
        assert received(socket) == (b"", {"type": "end", "samples": 0})


@pytest.mark.parametrize(
    ("start", "status", "kind", "words"),
    [
        ({"input": "midi"}, 400, "bad-parameter", "input 'midi': expected mel or audio"),
        (
            {"input": "mel", "tempo": 3},
            400,
            "bad-parameter",
            "unknown parameter tempo: expected eta, first_window, force, input, ",
        ),
        ({}, 400, "bad-parameter", "input is missing"),
        ({"input": "audio"}, 400, "bad-parameter", "sample_rate is missing"),
        ({"input": "mel", "input_format": "int16"}, 400, "bad-parameter", "mel frames are float32"),
        ({"input": "mel", "timesteps": "9;3"}, 400, "bad-parameter", "expected whole numbers with commas"),
        ({"input": "mel", "steps": 3}, 400, "bad-parameter", "no sampling chain: steps have no effect"),
        ({"input": "mel", "seed": 3}, 400, "bad-parameter", "draws no noise"),
        ({"input": "mel", "mel-convention": "bels"}, 400, "bad-parameter", "mel convention 'bels': expected"),
        ({"input": "mel", "model": "x"}, 404, "unknown-model", "the model server has no model x"),
    ],
)
def test_first_messages(quick: Gateway, start: dict[str, Any], status: int, kind: str, words: str) -> None:
    with session(quick, **start) as socket:
        assert_refused(socket, status, kind, words, 1008)
    quick.wait_until_idle()


@pytest.mark.parametrize(("message", "words"), [("{", "is not JSON"), (b"{}", "is binary"), ("[]", "expected an obj")])
def test_first_messages_that_are_none(quick: Gateway, message: str | bytes, words: str) -> None:
    with connected(quick) as socket:
        socket.send(message)
        kind = "bad-parameter" if message == "[]" else "bad-body"
        assert_refused(socket, 400, kind, words, 1008)


@pytest.mark.parametrize(
    ("message", "status", "kind", "words"),
    [
        (bytes(511), 400, "bad-body", "a message of 511 bytes: expected whole mel frames of 512 bytes"),
        ("stop", 400, "bad-body", 'expected {"type": "end"}'),
        (frames(np.full((128, 3), np.nan)), 422, "unsuitable-input", "mel contains NaN or infinite values"),
        (frames(np.full((128, 3), 9.0)), 422, "suspicious-input", "`mel-convention=power`"),
        (frames(np.zeros((128, 500))), 413, "too-long", "longer than 5 s"),
    ],
)
def test_messages(quick: Gateway, message: str | bytes, status: int, kind: str, words: str) -> None:
    with session(quick, input="mel") as socket:
        socket.recv(WAIT_S)
        socket.send(message)
        assert_refused(socket, status, kind, words, 1008)
    quick.wait_until_idle()


def test_a_client_who_goes_away_stops_the_work() -> None:
    model = Gated()
    with running(model.transport, Limits(concurrent=1)) as gateway:
        with session(gateway, input="mel", window=100) as socket:
            socket.recv(WAIT_S)
            socket.send(frames(np.zeros((128, 2000))))
            model.let(1)
            wait_for(lambda: model.calls == 2)  # a short window, which is alone in flight
        wait_for(lambda: gateway.count(499, "/v1/stream", "WEBSOCKET") == 1)
        with session(gateway, input="mel") as other:  # what is in flight keeps the place
            assert_refused(other, 429, "busy", "try again later", 1013)
        model.let_all()
        gateway.wait_until_idle()
        assert model.calls == 2


def test_a_client_who_sends_too_fast_has_to_wait() -> None:
    """24 MB of frames are not held in memory while the model is busy."""
    model = Gated()
    blocks, sent = 48, []

    async def send(socket: AsyncConnection) -> None:
        for _ in range(blocks):
            await socket.send(frames(np.zeros((128, 1000))))
            sent.append(1)
        await socket.send('{"type": "end"}')

    async def work(url: str) -> tuple[int, Any]:
        start = {"type": "start", "input": "mel", "window": 2048, "output_format": "int16"}
        async with connect_async(url, max_size=None, **PATIENT) as socket:
            await socket.send(json.dumps(start))
            await socket.recv()
            sending = asyncio.create_task(send(socket))
            counts = [-1, 0]
            while model.calls < 1 or counts[0] != counts[1]:
                await asyncio.sleep(0.1)
                counts = [counts[1], len(sent)]
            assert len(sent) < blocks
            model.let_all()
            size = 0
            while isinstance(message := await socket.recv(), bytes):
                size += len(message)
            await sending
            return size, json.loads(message)

    with running(model.transport, Limits(audio_s=10_000)) as gateway:
        url = f"ws://127.0.0.1:{gateway.port}/v1/stream"
        size, end = asyncio.run(asyncio.wait_for(work(url), WAIT_S))
    assert (len(sent), size) == (blocks, 2 * 256 * 1000 * blocks)
    assert end == {"type": "end", "samples": 256 * 1000 * blocks}


def test_a_client_who_says_nothing() -> None:
    model = Gated()
    with running(model.transport, Limits(idle_s=0.2)) as gateway, connected(gateway) as socket:
        assert_refused(socket, 408, "slow-upload", "no message for 0.2 s", 1008)
    with running(model.transport, Limits(idle_s=500)) as gateway:
        with session(gateway, input="mel") as socket:
            socket.recv(WAIT_S)
            gateway.pass_time(500)
            assert_refused(socket, 408, "slow-upload", "no message for 500 s", 1008)
        gateway.wait_until_idle()


def test_a_session_is_finished_when_the_gateway_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gomin_gateway.server._POLL_S", 0)  # it looks between any two steps of the session
    model = Gated()
    with running(model.transport) as gateway, session(gateway, input="mel") as socket:
        socket.recv(WAIT_S)
        gateway.server.should_exit = True
        wait_for(lambda: not any(server.is_serving() for server in gateway.server.servers))
        socket.send(frames(np.zeros((128, 100))))
        socket.send('{"type": "end"}')
        model.let_all()
        audio, end = received(socket)
        assert (len(audio), end["samples"]) == (4 * 25600, 25600)


def test_a_defect_of_ours() -> None:
    """It is a problem, too, and frees the place."""
    broken = MockModel.vocoder(lambda mel: mel[1000])  # raises an error that nobody expects
    with running(MockTransport({"gomin_gan": broken}), Limits(concurrent=1)) as gateway:
        with session(gateway, input="mel") as socket:
            socket.recv(WAIT_S)
            socket.send(frames(np.zeros((128, 100))))
            socket.send('{"type": "end"}')
            assert_refused(socket, 500, "internal", "its log has the details", 1011)
        gateway.wait_until_idle()
        gateway.post("/v1/reconstruct", wav(0.5)).assert_problem(500, "internal", "its log has the details")
        gateway.wait_until_idle()


def test_keys_and_origins() -> None:
    model = Gated()
    model.let_all()
    with running(model.transport, keys=ApiKeys(["k"]), origins=["https://a.example"]) as gateway:
        with session(gateway, input="mel") as socket:
            assert_refused(socket, 401, "unauthorized", "Bearer", 1008)
        with session(gateway, input="mel", key="x") as socket:
            assert_refused(socket, 401, "unauthorized", "not known", 1008)
        with session(gateway, input="mel", key="k") as socket:
            assert json.loads(socket.recv(WAIT_S))["type"] == "ready"
        for headers, origin, status in [
            ({"Authorization": "Bearer x"}, None, 401),
            ({"Authorization": "Bearer k"}, "https://b.example", 403),
        ]:
            with pytest.raises(InvalidStatus) as refused:
                connected(gateway, additional_headers=headers, origin=origin)
            assert refused.value.response.status_code == status
            assert json.loads(refused.value.response.body)["status"] == status
        for origin in (None, "https://a.example", gateway.url):
            with connected(gateway, additional_headers={"Authorization": "Bearer k"}, origin=origin) as socket:
                socket.send('{"type": "start", "input": "mel"}')
                assert json.loads(socket.recv(WAIT_S))["type"] == "ready"
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://127.0.0.1:{gateway.port}/v1/other", **PATIENT)
        assert refused.value.response.status_code == 403
