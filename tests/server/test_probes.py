"""A helper process that runs but never answers is noticed; one that works for long is left alone."""

import http.client
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from gomin_server import probes
from gomin_server.probes import LARGEST_INPUT, Prober, Service, small_request
from gomin_server.processes import Served, Used
from tests.support import RunningServer, serving

TIMEOUT_S = 2  # of the helper processes
CONFIG = """
backend: "python"
max_batch_size: 1
input [ { name: "seconds" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "done" data_type: TYPE_FP32 dims: [ 1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching { default_queue_policy { max_queue_size: 4 timeout_action: REJECT default_timeout_microseconds: 0 } }
"""
# computes for so many seconds; never answers if they are negative
WORKER = """
import threading, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            seconds = pb_utils.get_input_tensor_by_name(request, "seconds").as_numpy()
            if seconds[0, 0] < 0:
                threading.Event().wait()
            end = time.thread_time() + seconds[0, 0]
            while time.thread_time() < end:
                pass
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("done", seconds)]))
        return responses
"""
# passes its requests on to the worker, and is idle meanwhile
CALLER = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            seconds = pb_utils.get_input_tensor_by_name(request, "seconds")
            request = pb_utils.InferenceRequest(
                model_name="worker", requested_output_names=["done"], inputs=[seconds]
            )
            answer = request.exec()
            if answer.has_error():
                responses.append(pb_utils.InferenceResponse(error=answer.error()))
            else:
                responses.append(pb_utils.InferenceResponse(answer.output_tensors()))
        return responses
"""


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("probed")
    for name, program in (("worker", WORKER), ("caller", CALLER)):
        (home / "models" / name / "1").mkdir(parents=True)
        (home / "models" / name / "1" / "model.py").write_text(program)
        (home / "models" / name / "config.pbtxt").write_text(f'name: "{name}"\n{CONFIG}')
    with serving(home / "models", home / "log", f"--helper-timeout={TIMEOUT_S}") as server:
        yield server


def infer(server: RunningServer, seconds: float, model: str = "worker") -> float:
    """The answer of a model."""
    tensor = {"name": "seconds", "shape": [1, 1], "datatype": "FP32", "data": [seconds]}
    body = json.dumps({"inputs": [tensor]}).encode()
    request = urllib.request.Request(
        f"{server.http}/v2/models/{model}/infer", body, {"Content-Type": "application/json"}
    )
    try:
        reply = urllib.request.urlopen(request, timeout=300)
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read()) from error
    with reply:
        return float(json.load(reply)["outputs"][0]["data"][0])


def infer_without_answer(server: RunningServer, seconds: float, model: str = "worker") -> threading.Thread:
    """A request in a thread, which ends when the request fails."""

    def send() -> None:
        with pytest.raises((OSError, AssertionError, http.client.HTTPException)):
            infer(server, seconds, model)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def wait_for_restart(server: RunningServer, count: int) -> None:
    deadline = time.monotonic() + 240
    while server.log_text.count("the server is ready again") < count:
        assert time.monotonic() < deadline, server.log_text[-3000:]
        time.sleep(0.1)


@pytest.mark.server
@pytest.mark.slow
class TestRealServer:
    def test_a_helper_that_computes_is_left_alone(self, probed: RunningServer) -> None:
        """Also the helper of a model that waits for it, and with requests that wait in its queue."""
        before = probed.log_text.count("restarting the server")
        waiting = [threading.Thread(target=infer, args=(probed, 0.3)) for _ in range(3)]
        for thread in waiting:
            thread.start()

        assert infer(probed, 3.0 * TIMEOUT_S, "caller") == 3.0 * TIMEOUT_S

        for thread in waiting:
            thread.join()
        assert probed.log_text.count("restarting the server") == before

    def test_an_idle_helper_is_left_alone(self, probed: RunningServer) -> None:
        """Somebody is connected, so small inferences are sent; they are answered."""
        before = probed.log_text.count("restarting the server")
        answered = completed(probed)
        with socket.create_connection(("127.0.0.1", probed.grpc_port)):
            deadline = time.monotonic() + 240
            while completed(probed) < answered + 2:
                assert time.monotonic() < deadline
                time.sleep(0.2)

        assert probed.log_text.count("restarting the server") == before

    @pytest.mark.parametrize("requests", [1, 8], ids=["one request", "full queue"])
    def test_a_helper_that_never_answers_is_noticed(self, probed: RunningServer, requests: int) -> None:
        before = probed.log_text.count("the server is ready again")
        stuck = [infer_without_answer(probed, -1.0) for _ in range(requests)]

        wait_for_restart(probed, before + 1)

        for thread in stuck:
            thread.join()
        # caller: its own small inference waits for the worker
        assert re.search(
            "no answer from the helper process of model (caller|worker|caller, worker), which is idle; restarting",
            probed.log_text,
        )
        assert infer(probed, 0.0) == 0.0

    def test_a_small_inference_does_not_delay_the_end(self, probed: RunningServer) -> None:
        """The last test of this server. The answer is not read yet when the server is told to end."""
        answered = completed(probed)
        with socket.create_connection(("127.0.0.1", probed.grpc_port)):
            deadline = time.monotonic() + 240
            while completed(probed) == answered:
                assert time.monotonic() < deadline
                time.sleep(0.02)

        status = probed.stop()

        assert status == 0, probed.log_text[-3000:]  # 1 if a connection stays open for Triton's 30 s


def completed(server: RunningServer) -> int:
    """The number of requests that the worker has answered."""
    with urllib.request.urlopen(f"{server.http}/v2/models/worker/stats") as reply:
        return int(json.load(reply)["model_stats"][0]["inference_stats"]["success"]["count"])


class TestSmallRequest:
    def request(self, **config: Any) -> Any:
        body = small_request(config)
        return None if body is None else json.loads(body)

    def test_dimensions_that_may_vary_are_one(self) -> None:
        mel = {"name": "mel", "data_type": "TYPE_FP32", "dims": ["3", "-1"]}
        text = {"name": "text", "data_type": "TYPE_STRING", "dims": ["1"]}
        optional = {"name": "first_sample", "data_type": "TYPE_INT64", "dims": ["1"], "optional": True}

        assert self.request(max_batch_size=16, input=[mel, text, optional])["inputs"] == [
            {"name": "mel", "shape": [1, 3, 1], "datatype": "FP32", "data": [0, 0, 0]},
            {"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [""]},
        ]
        assert self.request(max_batch_size=0, input=[mel])["inputs"][0]["shape"] == [3, 1]

    def test_a_signal_has_the_length_of_a_frame(self) -> None:
        signal = {"name": "signal", "data_type": "TYPE_FP32", "dims": [1, -1]}
        parameters = {"gomin.hop_length": {"string_value": "256"}}

        assert self.request(input=[signal], parameters=parameters)["inputs"][0]["shape"] == [1, 256]

    def test_a_chain_has_one_step(self) -> None:
        parameters = {"gomin.kind": {"string_value": "diffusion"}}

        assert self.request(parameters=parameters)["parameters"] == {"sampler": "ddim", "steps": 1}

    @pytest.mark.parametrize(
        "config",
        [
            {"sequence_batching": {}},
            {"model_transaction_policy": {"decoupled": True}},
            {"input": [{"name": "large", "data_type": "TYPE_FP32", "dims": [LARGEST_INPUT + 1]}]},
        ],
        ids=["sequences", "decoupled", "large"],
    )
    def test_other_models_get_none(self, config: dict[str, Any]) -> None:
        assert self.request(**config) is None


@pytest.mark.parametrize(("backend", "processes"), [("python", [1]), ("onnxruntime", [2])])
def test_what_processes_use_is_counted_once(
    monkeypatch: pytest.MonkeyPatch, backend: str, processes: list[int]
) -> None:
    """Use of a server includes that of its helpers, which are its children."""
    counted = []

    def used(given: list[int]) -> Used:
        counted.append(sorted(given))
        return Used(0.0, 0.0)

    monkeypatch.setattr(probes, "used", used)
    monkeypatch.setattr(probes, "waits_for_disk", lambda _: False)
    monkeypatch.setattr(probes, "has_clients", lambda *_: False)
    prober = Prober(Service("127.0.0.1", 1, [1], {}), limit_s=0.0)
    monkeypatch.setattr(prober, "_config", lambda _: {"backend": backend})

    for _ in range(2):  # the first reads the configuration
        assert prober.silent(1, {2: Served("model", "1")}) == []

    assert counted == [processes]
