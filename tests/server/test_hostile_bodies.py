"""HTTP bodies that end tritonserver 24.10, or might: each is followed by a good answer, without a person's help."""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from gomin_client import Connection, Vocoder
from tests.support import RunningServer, serving

pytestmark = [pytest.mark.server, pytest.mark.slow]

INFER = "/v2/models/gomin_gan/infer"
JSON = {"Content-Type": "application/json"}


def request_with(shape: str = "[1, 128, 2]", data: str = "[0]") -> bytes:
    tensor = f'{{"name": "mel", "shape": {shape}, "datatype": "FP32", "data": {data}}}'
    return f'{{"inputs": [{tensor}]}}'.encode()


BODIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "three million brackets": (b"[" * 3_000_000, JSON),
    "deeply nested data": (request_with(data="[" * 100_000 + "]" * 100_000), JSON),
    "a shape of 2**40": (request_with(shape=f"[1, 128, {2**40}]"), JSON),
    "a shape whose size wraps": (request_with(shape=f"[1, 128, {2**55 + 3}]"), JSON),
    "brackets in gzip": (gzip.compress(b"[" * 100_000_000, 1), {**JSON, "Content-Encoding": "gzip"}),
    "a form of five megabytes": (b"\x00" * 5_000_000, {"Content-Type": "application/x-www-form-urlencoded"}),
}


@pytest.fixture(scope="module")
def victim(gan_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of its own, which is ended and restarted; it gives up only after more restarts than there are tests."""
    with serving(gan_repository, tmp_path_factory.mktemp("victim") / "log", "--restarts", "30") as running:
        yield running


def expect_a_good_answer(victim: RunningServer) -> None:
    patient = Connection(wait_s=300, retry_for_s=300)
    for url in (victim.grpc, victim.http):
        with Vocoder(url, connection=patient) as vocoder:
            mel = np.full((vocoder.contract.mel.n_mels, 4), 0.3, np.float32)
            assert np.isfinite(vocoder.synthesize(mel)).all()
    assert victim.process.poll() is None


@pytest.mark.parametrize("name", BODIES)
def test_a_good_answer_follows(victim: RunningServer, name: str) -> None:
    body, headers = BODIES[name]
    connection = http.client.HTTPConnection("127.0.0.1", victim.http_port, timeout=20)
    with suppress(OSError, http.client.HTTPException):  # the server may end before it answers
        connection.request("POST", INFER, body, headers)
        answer = connection.getresponse()
        assert answer.status >= 400, f"{name} was accepted: {json.loads(answer.read())}"
    connection.close()

    expect_a_good_answer(victim)


def test_a_good_answer_follows_many_small_chunks(victim: RunningServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", victim.http_port, timeout=20)
    with suppress(OSError, http.client.HTTPException):
        connection.connect()
        chunks = b"1\r\n[\r\n" * 600_000 + b"0\r\n\r\n"
        head = (
            f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert connection.sock is not None
        connection.sock.sendall(head.encode() + chunks)
        connection.sock.recv(1000)
    connection.close()

    expect_a_good_answer(victim)
