"""The protocol of all transports, which turn the exceptions of other libraries into `GominError`s."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

from numpy.typing import NDArray

from gomin_client.errors import UnknownModelError, UsageError
from gomin_client.transports.statistics import Statistics

Tensors = Mapping[str, NDArray[Any]]
Parameters = Mapping[str, str | int | float | bool]

LONGEST_S = 3600.0  # deadline of a request whose caller sets none


@dataclass(frozen=True)
class ModelInfo:
    """A model as a server or repository describes it.

    Attributes:
        name: the model's name.
        versions: versions that can be called, ascending, at least one.
        parameters: string parameters of its config.pbtxt.
        max_batch_size: maximum number of items in one request; 0 for a model without a batch axis.
    """

    name: str
    versions: tuple[int, ...]
    parameters: Mapping[str, str]
    max_batch_size: int


@dataclass(frozen=True)
class ServerInfo:
    """The program that runs the models.

    Attributes:
        name: "triton", or "onnxruntime" for one in this process.
        version: its version.
    """

    name: str
    version: str


@runtime_checkable
class Transport(Protocol):
    """A way to call models; thread-safe. A subclass defines `url`, `models`, `describe` and `infer`."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL that leads here, for messages."""

    @property
    def servers(self) -> int:
        """Number of servers that may be called."""
        return 1

    @property
    def can_stream(self) -> bool:
        """Whether it can receive several answers to one request; see `infer_stream`."""
        return False

    def server(self) -> ServerInfo | None:
        """The program that runs the models; of several servers, of one that answers. None if it is not known.

        Raises:
            ServerError: the server cannot be reached.
        """
        return None

    @abstractmethod
    def models(self) -> list[str]:
        """Names of the models that can be called, sorted.

        Raises:
            ServerError: the server cannot be reached or is not ready.
            AccessError: the server refuses this client; every other method may raise it too.
        """

    @abstractmethod
    def describe(self, model: str) -> ModelInfo:
        """Describe one model.

        Raises:
            UnknownModelError: there is no such model; see `unknown_model`.
            ServerError: the server cannot be reached, or the server or the model is not ready.
        """

    @abstractmethod
    def infer(
        self,
        model: str,
        version: int,
        inputs: Tensors,
        timeout_s: float = LONGEST_S,
        parameters: Parameters | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Call one version of a model.

        Args:
            model: its name.
            version: its version.
            inputs: name → tensor, the batch axis first.
            timeout_s: deadline of the request, in seconds.
            parameters: request parameters; for a diffusion model see `SamplerSettings.to_parameters`.

        Returns:
            Name → tensor.

        Raises:
            ContractError: the model does not take these tensors or parameters.
            DeadlineError: there is no answer within `timeout_s` seconds.
            InferenceError: the model answered with an error.
            ServerError: the server cannot be reached, or is unavailable.
        """

    def infer_stream(
        self,
        model: str,
        version: int,  # noqa: ARG002
        inputs: Tensors,  # noqa: ARG002
        timeout_s: float = LONGEST_S,  # noqa: ARG002
        parameters: Parameters | None = None,  # noqa: ARG002
    ) -> Generator[dict[str, NDArray[Any]]]:
        """Call one version of a model that sends several answers; arguments and errors are those of `infer`.

        Closing the generator cancels the request. `RetryingTransport` repeats a request that was lost, and leaves out
        the answers that have been passed on.

        Yields:
            Name → tensor, for each answer.

        Raises:
            UsageError: this transport has one answer for each request.
        """
        raise UsageError(f"{self.url}: model {model} sends several answers, which needs grpc:// or local:")

    def prepare(self, model: str, version: int) -> None:  # noqa: ARG002
        """Load what the first call of a model needs, so that the time of that call is the model's own.

        Raises:
            ContractError, ServerError: see `infer`.
        """
        return

    def statistics(self, model: str, version: int) -> Statistics | None:  # noqa: ARG002
        """What the server has counted for a model since it was loaded, for all callers; None if it counts nothing.

        Raises:
            ServerError: the server cannot be reached.
        """
        return None

    def close(self) -> None:
        """Free connections and sessions; requests in flight end with an error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unknown_model(url: str, model: str, available: Sequence[str]) -> UnknownModelError:
    """The error of `Transport.describe` for a model that is not there; it lists those that are."""
    has = f"it has {', '.join(available)}" if available else "it has no models at all: run gomin-export first"
    return UnknownModelError(f"{url} has no model {model}; {has}")
