"""The protocol that every transport fulfils. Vendor errors end in the transport: they become `GominError`s there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]
Parameters = Mapping[str, str | int | float | bool]

LONGEST_S = 3600.0  # that a request may take if its caller does not say
# A server counts a request a moment after it has sent the answer: how long that usually takes, and may take at most.
COUNTED_LATE_S = 0.1
COUNTED_WITHIN_S = 2.0

Counted = TypeVar("Counted")


@dataclass(frozen=True)
class ModelInfo:
    """A model as a server or repository shows it.

    Attributes:
        name: the model's name.
        versions: those that can be called, ascending, at least one.
        parameters: string parameters of its config.pbtxt.
        max_batch_size: the most items that a server takes in one request.
    """

    name: str
    versions: tuple[int, ...]
    parameters: Mapping[str, str]
    max_batch_size: int


@dataclass(frozen=True)
class Statistics:
    """What a server has counted of one model version.

    Attributes:
        inferences: items answered.
        executions: calls of the model; fewer than `inferences` where several went as one batch.
        queue_s: seconds that requests waited, in all.
        compute_input_s: seconds that their inputs took to be made ready.
        compute_s: seconds that the model ran for them.
        compute_output_s: seconds that their outputs took.
        requests: requests answered without an error.
    """

    inferences: int
    executions: int
    queue_s: float
    compute_input_s: float
    compute_s: float
    compute_output_s: float
    requests: int

    def since(self, earlier: Statistics) -> Statistics:
        """What has been added."""
        return Statistics(*(now - then for now, then in zip(astuple(self), astuple(earlier), strict=True)))

    @property
    def is_growth(self) -> bool:
        """Of what has been added: nothing has become less, as it does where a server was restarted meanwhile."""
        return all(value >= 0 for value in astuple(self))


def settled(
    ask: Callable[[], Counted], enough: Callable[[Counted], bool] = lambda _: True, within_s: float = COUNTED_WITHIN_S
) -> Counted:
    """What a server has counted, once it has counted all that it has answered.

    Triton counts a request a moment after it has sent the answer, so whoever asks at once may miss the last ones. What
    it still works on, for other callers or ones that have given up, does not show in its counts and is not waited for.

    Args:
        ask: asks the server.
        enough: whether what it says can be all.
        within_s: seconds after which its last word is taken; its other callers need not let it rest.

    Returns:
        What it said twice in a row and is enough, or said last.
    """
    deadline = time.monotonic() + within_s
    now = ask()
    while time.monotonic() < deadline:
        before = now
        time.sleep(COUNTED_LATE_S)
        now = ask()
        if now == before and enough(now):
            break
    return now


class Transport(Protocol):
    """A way to call models."""

    @property
    def url(self) -> str:
        """The URL that leads here, for messages."""
        ...

    @property
    def servers(self) -> int:
        """How many servers it may call."""
        ...

    def models(self) -> list[str]:
        """Names of the models that can be called, sorted.

        Raises:
            ServerError: the server cannot be reached or is not ready.
            AccessError: the server refuses this client, in this and in all other calls.
        """
        ...

    def describe(self, model: str) -> ModelInfo:
        """What is known of one model.

        Raises:
            UnknownModelError: there is no such model; the message lists those there are.
            ServerError: the server cannot be reached, or the server or the model is not ready.
        """
        ...

    def infer(
        self,
        model: str,
        version: int,
        inputs: Tensors,
        timeout_s: float = LONGEST_S,
        parameters: Parameters | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Call one version of a model: name → tensor in, name → tensor out.

        Args:
            model: its name.
            version: its version.
            inputs: tensors, the batch first.
            timeout_s: seconds that the answer may take.
            parameters: request parameters; of a diffusion model, see `sampling.settings`.

        Raises:
            ContractError: the model does not take these tensors or parameters.
            DeadlineError: no answer within `timeout_s` seconds.
            InferenceError: the model answered with an error.
            ServerError: the server cannot be reached, or is unavailable.
        """
        ...

    def statistics(self, model: str, version: int) -> Statistics | None:
        """What the server has counted of a model since it was loaded, of all callers; None if it counts nothing.

        Raises:
            ServerError: the server cannot be reached.
        """
        ...

    def close(self) -> None:
        """Free connections and sessions."""
        ...


def unknown_model(url: str, model: str, available: list[str]) -> str:
    """The message of an `UnknownModelError`."""
    if not available:
        return f"{url} has no model {model}; it has no models at all: run gomin-export first"
    return f"{url} has no model {model}; it has {', '.join(available)}"
