"""The answers of gomin_diffusion_stream of which some cannot be sent. Its model.py, with senders that fail."""

import json
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gomin_client import sampling
from gomin_client.sampling import jobs
from tests.support import ROOT

STEPS = 5
FINAL = 1
MODEL = Path("gomin_export/templates/gomin_diffusion/model.py")
PARAMETERS = {
    "gomin.hop_length": "4",
    "gomin.halo_frames": "1",
    "gomin.num_diffusion_steps": "50",
    "gomin.sampler": "ddim",
    "gomin.steps": str(STEPS),
}
CONFIG = {
    "max_batch_size": 4,
    "parameters": {name: {"string_value": value} for name, value in PARAMETERS.items()},
}


class Tensor:
    def __init__(self, name: str, values: np.ndarray) -> None:
        self._name, self._values = name, values

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._values


class Request:
    """A request and its sender; the sends that fail are counted from 1."""

    def __init__(self, *failing: int) -> None:
        self.failing = failing
        self.tried = 0
        self.sent: list[tuple[Any, int]] = []
        mel = np.full((1, 2, 3), 0.5, np.float32)
        self.tensors = {"mel": Tensor("mel", mel), "seed": Tensor("seed", np.array([[1]], np.uint64))}

    def parameters(self) -> str:
        return ""

    def get_response_sender(self) -> "Request":
        return self

    def is_cancelled(self) -> bool:
        return False

    def send(self, response: Any, flags: int = 0) -> None:
        assert self.sent == [] or self.sent[-1][1] != FINAL
        self.tried += 1
        if self.tried in self.failing:
            raise RuntimeError("no shared memory")
        self.sent.append((response, flags))

    def steps(self) -> list[int]:
        """The steps whose answers were sent."""
        tensors = [tensor for response, _ in self.sent if response for tensor in response.output_tensors]
        return [int(tensor.as_numpy()[0, 0]) for tensor in tensors if tensor.name() == "step"]


@pytest.fixture
def logged() -> list[str]:
    return []


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> Any:
    """The model, with a denoiser that finds no noise and records how many items it was called with."""
    triton: Any = ModuleType("triton_python_backend_utils")
    triton.using_decoupled_model_transaction_policy = lambda _: True
    triton.get_input_tensor_by_name = lambda request, name: request.tensors.get(name)
    triton.Tensor = Tensor
    triton.InferenceResponse = lambda output_tensors=(), error=None: SimpleNamespace(
        output_tensors=output_tensors, error=error
    )
    triton.TritonError = lambda text, *_: text
    triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL = FINAL
    triton.Logger = SimpleNamespace(log_error=logged.append)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton)
    monkeypatch.setitem(sys.modules, "sampling", sampling)
    monkeypatch.setitem(sys.modules, "sampling.jobs", jobs)
    made = runpy.run_path(str(ROOT / MODEL))["TritonPythonModel"]()
    made.initialize({"model_config": json.dumps(CONFIG), "model_name": "twin", "model_version": "1"})
    made.items = []

    def denoise(signal: np.ndarray, timestep: np.ndarray, mel: np.ndarray) -> np.ndarray:
        made.items.append(len(signal))
        return np.zeros_like(signal)

    monkeypatch.setattr(made, "_denoise", denoise)
    return made


def test_an_answer_that_cannot_be_sent_ends_its_request_only(model: Any, logged: list[str]) -> None:
    failing, other = Request(2), Request()

    assert model.execute([failing, other]) is None

    assert other.steps() == [1, 2, 3, 4, 5]
    assert [flags for _, flags in other.sent] == [0] * STEPS + [FINAL]
    assert failing.steps() == [1]
    last, flags = failing.sent[-1]
    assert (last.error, flags) == ("twin: an answer could not be sent: no shared memory", FINAL)
    assert model.items == [2, 2, 1, 1, 1]  # its chain ends, and the other is not computed again
    assert logged == []


def test_an_end_that_cannot_be_sent_is_logged(model: Any, logged: list[str]) -> None:
    failing, other = Request(STEPS, STEPS + 1), Request()

    assert model.execute([failing, other]) is None

    assert (failing.steps(), other.steps()) == ([1, 2, 3, 4], [1, 2, 3, 4, 5])
    assert logged == ["twin: the end of a stream could not be sent: no shared memory"]
    assert model.items == [2] * STEPS


def test_steps_that_were_sent_are_not_sent_again(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third call of the denoiser fails, and the requests start again one by one."""
    denoise, first, second = model._denoise, Request(), Request()

    def failing(signal: np.ndarray, *others: np.ndarray) -> np.ndarray:
        noise = denoise(signal, *others)
        if len(model.items) == 3:
            raise RuntimeError("out of memory")
        return noise

    monkeypatch.setattr(model, "_denoise", failing)

    model.execute([first, second])

    assert model.items == [2] * 3 + [1] * 2 * STEPS
    for request in (first, second):
        assert request.steps() == [1, 2, 3, 4, 5]
        assert [flags for _, flags in request.sent] == [0] * STEPS + [FINAL]
