"""Queues that are full, requests that wait too long or are cancelled, on a real server, and what clients do then."""

import re
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from gomin_client import Connection, Vocoder
from gomin_client.errors import ServerError
from gomin_client.transports.statistics import settled
from tests.support import UNPROBED, RunningServer, serving

pytestmark = [pytest.mark.server, pytest.mark.long]

FRAMES = 100
SLOW = 400  # frames of requests that keep the model busy
MEL = np.random.default_rng(0).uniform(0, 1, (128, FRAMES)).astype(np.float32)


@pytest.fixture(scope="module")
def queues(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The tiny GAN, one item in a call: a queue of two requests, a timeout of a tenth of a second, and no bound."""
    home = tmp_path_factory.mktemp("queues")
    for name, queue in (
        ("short", "max_queue_size: 2"),
        ("hasty", "timeout_action: REJECT default_timeout_microseconds: 100000"),
        ("long", ""),
    ):
        shutil.copytree(tiny_repository / "gomin_gan", home / "models" / name)
        config = home / "models" / name / "config.pbtxt"
        text = config.read_text().replace('name: "gomin_gan"', f'name: "{name}"').replace("_size: 16", "_size: 1")
        text, count = re.subn("(?<=dynamic_batching {\n)", f"  default_queue_policy {{ {queue} }}\n", text)
        assert count == 1
        config.write_text(text)
    with serving(home / "models", home / "log", UNPROBED) as server:
        yield server


class Flood:
    """Many requests at once, without waiting for answers, as clients send them that do not try again."""

    def __init__(self, server: RunningServer, model: str, count: int, frames: int) -> None:
        self.client = triton.InferenceServerClient(server.grpc.removeprefix("grpc://"))
        self.errors: list[Any] = []
        self._lock = threading.Lock()
        mel = triton.InferInput("mel", [1, 128, frames], "FP32")
        mel.set_data_from_numpy(np.zeros((1, 128, frames), np.float32))
        self.calls = [self.client.async_infer(model, [mel], self._answer) for _ in range(count)]

    def _answer(self, result: Any, error: Any) -> None:
        with self._lock:
            self.errors.append(error)

    def wait(self) -> list[Any]:
        """The errors of all requests, None for those that succeeded."""
        deadline = time.monotonic() + 300
        while len(self.errors) < len(self.calls):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.client.close()
        return self.errors


@pytest.mark.parametrize(
    ("model", "words"), [("short", "Exceeds maximum queue size"), ("hasty", "Request timeout expired")]
)
def test_requests_beyond_the_queue_are_refused_as_unavailable(queues: RunningServer, model: str, words: str) -> None:
    for _ in range(20):  # on a busy machine, Triton may look at a request only when its time is over
        errors = Flood(queues, model, 20, SLOW).wait()
        refused = [error for error in errors if error is not None]
        if 0 < len(refused) < 20:
            break

    assert 0 < len(refused) < 20
    assert all(error.status() == "StatusCode.UNAVAILABLE" and words in error.message() for error in refused)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_clients_try_again_and_lose_nothing(queues: RunningServer, protocol: str) -> None:
    url = getattr(queues, protocol)
    with Vocoder(url, "short") as vocoder:
        expected = vocoder.synthesize(MEL)
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: vocoder.synthesize(MEL), range(36)))

    for answer in answers:
        np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_client_that_may_not_try_again_says_that_the_server_is_overloaded(
    queues: RunningServer, protocol: str
) -> None:
    """A queue may have room again by the time that the client's request arrives; then the flood is repeated."""
    deadline = time.monotonic() + 300
    with Vocoder(getattr(queues, protocol), "short", connection=Connection(retry_for_s=0)) as vocoder:
        vocoder.synthesize(MEL)
        refusal = None
        while refusal is None:
            assert time.monotonic() < deadline
            flood = Flood(queues, "short", 10, 3 * SLOW)
            while not flood.errors:
                time.sleep(0.01)
            try:
                vocoder.synthesize(MEL)
            except ServerError as error:
                refusal = error
            flood.wait()

    assert re.search(r"is overloaded \(.*Exceeds maximum queue size.*\): try again later", str(refusal))


def test_most_of_many_cancelled_requests_do_not_run(queues: RunningServer) -> None:
    with Vocoder(queues.grpc, "long") as vocoder:
        vocoder.synthesize(MEL)

        def inferences() -> int:
            counted = settled(vocoder.statistics)
            assert counted is not None
            return counted.inferences

        for _ in range(20):  # on a busy machine, many may have run before they are cancelled
            before = inferences()
            flood = Flood(queues, "long", 50, SLOW)
            for call in flood.calls:
                call.cancel()
            flood.wait()
            vocoder.synthesize(MEL)
            ran = inferences() - before - 1
            if ran <= 25:
                break

    assert ran <= 25
