"""Malformed requests: each one is answered, and the server serves the next one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.support import RunningServer

pytestmark = pytest.mark.server

TENSORS = {
    "gomin_gan": {"mel": ((1, 128, 3), np.float32)},
    "gomin_denoiser": {
        "signal": ((1, 1, 768), np.float32),
        "timestep": ((1, 1), np.float32),
        "mel": ((1, 32, 3), np.float32),
    },
    "gomin_diffusion": {
        "mel": ((1, 32, 2), np.float32),
        "seed": ((1, 1), np.uint64),
        "first_sample": ((1, 1), np.int64),
    },
}
DTYPES = [np.float32, np.float64, np.float16, np.int32, np.int64, np.uint64, np.uint8, np.bool_]
VALUES = [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 0.0, -1.0, 50.0, 1e6]
Tensors = dict[str, NDArray[Any]]


def good(model: str) -> Tensors:
    return {name: np.zeros(shape, dtype) for name, (shape, dtype) in TENSORS[model].items()}


@st.composite
def requests(draw: st.DrawFn, model: str) -> Tensors:
    """A good request with one or two faults."""
    tensors = good(model)
    for _ in range(draw(st.integers(1, 2))):
        if not tensors:
            break
        name = draw(st.sampled_from(sorted(tensors)))
        tensor = tensors[name]
        fault = draw(st.sampled_from(["value", "shape", "dtype", "missing", "extra", "rank", "empty"]))
        if fault == "value" and tensor.dtype.kind == "f" and tensor.size:
            tensor.flat[draw(st.integers(0, tensor.size - 1))] = draw(st.sampled_from(VALUES))
        elif fault == "value":
            tensor[...] = draw(arrays.from_dtype(tensor.dtype))
        elif fault in ("shape", "rank"):
            rank = tensor.ndim if fault == "shape" else draw(st.integers(1, 5))
            shape = draw(st.lists(st.integers(1, 33), min_size=rank, max_size=rank))
            tensors[name] = np.zeros(shape if np.prod(shape) < 1e6 else [1] * rank, tensor.dtype)
        elif fault == "empty":
            tensors[name] = np.zeros((*tensor.shape[:-1], 0), tensor.dtype)
        elif fault == "dtype":
            tensors[name] = tensor.astype(draw(st.sampled_from(DTYPES)))
        elif fault == "missing":
            del tensors[name]
        else:
            tensors["extra"] = np.zeros((1, 1), np.float32)
    return tensors


class Caller:
    """A bare tritonclient."""

    def __init__(self, server: RunningServer, scheme: str) -> None:
        self._module = tritonclient.grpc if scheme == "grpc" else tritonclient.http
        self._client = self._module.InferenceServerClient(getattr(server, scheme).partition("://")[2])

    def __call__(self, model: str, tensors: Tensors) -> NDArray[Any]:
        inputs = [
            self._module.InferInput(name, tensor.shape, np_to_triton_dtype(tensor.dtype)).set_data_from_numpy(tensor)
            for name, tensor in tensors.items()
        ]
        return self._client.infer(model, inputs).as_numpy("noise" if model == "gomin_denoiser" else "audio")

    def close(self) -> None:
        self._client.close()


@pytest.fixture(scope="module", params=["grpc", "http"])
def call(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[Caller]:
    caller = Caller(server, request.param)
    yield caller
    caller.close()


@pytest.fixture(scope="module")
def expected(call: Caller) -> dict[str, NDArray[Any]]:
    return {model: call(model, good(model)) for model in TENSORS}


@pytest.mark.parametrize("model", TENSORS)
def test_every_request_is_answered_and_affects_no_other(call: Caller, expected: dict[str, Any], model: str) -> None:
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(requests(model))
    def send(tensors: Tensors) -> None:
        try:
            result = call(model, tensors)
        except (InferenceServerException, ValueError):  # ValueError: tritonclient's HTTP refuses some before sending
            pass
        else:
            assert np.isfinite(result).all()
            assert result.size

    send()
    np.testing.assert_array_equal(call(model, good(model)), expected[model])


@pytest.mark.parametrize("model", TENSORS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_values_outside_the_range_of_a_model(call: Caller, model: str, value: float) -> None:
    tensors = good(model)
    tensors["mel"][...] = value

    try:
        assert np.isfinite(call(model, tensors)).all()
    except InferenceServerException as error:
        answer = str(error)
        assert "NaN or infinite" in answer
    else:
        assert value == 3e38, "NaN was returned as a number"


def test_a_bad_request_among_good_ones_of_one_batch(server: RunningServer, expected: dict[str, Any]) -> None:
    """Sent at once, so that the dynamic batcher may combine them."""
    client = tritonclient.grpc.InferenceServerClient(server.grpc.partition("://")[2])
    answers: dict[int, Any] = {}
    for index in range(8):
        mel = good("gomin_gan")["mel"]
        if index % 2:
            mel[...] = np.nan
        tensor = tritonclient.grpc.InferInput("mel", mel.shape, "FP32").set_data_from_numpy(mel)
        client.async_infer(
            "gomin_gan", [tensor], lambda result, error, index=index: answers.__setitem__(index, error or result)
        )
    while len(answers) < 8:
        time.sleep(0.01)
    client.close()
    for index, answer in answers.items():
        if index % 2:
            assert "NaN or infinite" in str(answer)
        else:
            np.testing.assert_allclose(answer.as_numpy("audio"), expected["gomin_gan"], rtol=0, atol=1e-6)


def test_the_log_has_no_traceback(server: RunningServer) -> None:
    """After all of the above."""
    assert "Traceback" not in server.log_text
