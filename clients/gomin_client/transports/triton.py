"""What gRPC and HTTP have in common: Triton's answers, errors and tensors (little-endian, in C order)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.errors import (
    AccessError,
    ContractError,
    DeadlineError,
    GominError,
    InferenceError,
    ModelNotReadyError,
    ServerError,
)
from gomin_client.transports.base import ModelInfo, ServerInfo, Transport, unknown_model
from gomin_client.transports.statistics import Statistics

ASK_TIMEOUT_S = 10.0  # of everything but inference

# gRPC's names and HTTP's numbers of the same things; some of HTTP's come from proxies, Triton has few
_UNREACHABLE = ("StatusCode.UNAVAILABLE", "429", "502", "503", "504")
_TOO_LATE = ("StatusCode.DEADLINE_EXCEEDED",)
_BAD_REQUEST = ("StatusCode.INVALID_ARGUMENT", "400")
_NO_ACCESS = ("StatusCode.UNAUTHENTICATED", "StatusCode.PERMISSION_DENIED", "401", "403")
# Triton's answers while it waits for a restart (the helper process of a model is dead) and while it stops; the last is
# what a chain gets from its denoiser
_RESTARTING = ("is not healthy", "has no available versions", "Server not ready")
# Triton's answers if its queue is full, or a request waited in it too long; a chain passes them on from its denoiser
_OVERLOADED = ("Exceeds maximum queue size", "Request timeout expired")
_RESTRICTED = "protocol is restricted"  # Triton's answer, as unavailable, if a header is missing
_CLOSED = "gomin-admin'"  # the end of the name of the header that gomin-server demands and nobody can send

DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class RefusedError(Exception):
    """A server answered with an error; `TritonTransport.errors` makes a `GominError` of it.

    Attributes:
        status: gRPC's name of the status, or HTTP's number.
        message: the server's own.
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class TritonTransport(Transport):
    """A Triton server; subclasses speak its protocols."""

    def __init__(self, url: str) -> None:
        self._url = url

    def prepare(self, model: str, version: int) -> None:
        """Nothing: the server has loaded the model."""

    @property
    def url(self) -> str:
        """See `Transport.url`."""
        return self._url

    def server(self) -> ServerInfo | None:
        """See `Transport.server`; None if this client may see the models, but not the server's metadata."""
        try:
            with self._metadata():
                metadata = self._server_metadata()
                return ServerInfo(str(metadata["name"]), str(metadata["version"]))
        except AccessError:
            return None

    def models(self) -> list[str]:
        """See `Transport.models`."""
        return _ready_models(self._checked_index())

    def describe(self, model: str) -> ModelInfo:
        """See `Transport.describe`."""
        entries = self._checked_index()
        mine = [entry for entry in entries if entry.get("name") == model]
        if not mine:
            raise unknown_model(self.url, model, _ready_models(entries))
        with self._metadata():
            ready = sorted(int(entry["version"]) for entry in mine if entry.get("state") == "READY")
            if not ready:
                reason = mine[0].get("reason") or mine[0].get("state") or "no state"
                raise ModelNotReadyError(f"{self.url}: model {model} is not ready: {brief(str(reason))}")
            parameters, max_batch_size = self._config(model)
        return ModelInfo(model, tuple(ready), parameters, max_batch_size)

    def statistics(self, model: str, version: int) -> Statistics:
        """See `Transport.statistics`."""
        with self.errors():
            counted = self._statistics(model, str(version))
            times = counted.get("inference_stats", {})

            def seconds(name: str) -> float:
                return int(times.get(name, {}).get("ns", 0)) / 1e9

            return Statistics(
                inferences=int(counted.get("inference_count", 0)),
                executions=int(counted.get("execution_count", 0)),
                queue_s=seconds("queue"),
                compute_input_s=seconds("compute_input"),
                compute_s=seconds("compute_infer"),
                compute_output_s=seconds("compute_output"),
                requests=int(times.get("success", {}).get("count", 0)),
            )

    def _checked_index(self) -> list[dict[str, Any]]:
        with self._metadata():
            if not self._server_live():
                raise ServerError(f"{self.url}: the server is starting and not live yet; its log has the details")
            return self._index()

    @contextmanager
    def _metadata(self) -> Iterator[None]:
        """`errors`, and one for an answer about models that no Triton server gives."""
        try:
            with self.errors():
                yield
        except (InferenceError, ContractError) as error:
            raise ServerError(f"{self.url} is not a Triton server: {error}") from error

    @abstractmethod
    def _server_live(self) -> bool: ...

    @abstractmethod
    def _server_metadata(self) -> Mapping[str, Any]:
        """Name and version of the server."""

    @abstractmethod
    def _index(self) -> list[dict[str, Any]]:
        """Name, version, state and reason of every version of every model."""

    @abstractmethod
    def _config(self, model: str) -> tuple[dict[str, str], int]:
        """String parameters and max_batch_size."""

    @abstractmethod
    def _statistics(self, model: str, version: str) -> Mapping[str, Any]: ...

    @contextmanager
    def errors(self, timeout_s: float | None = None) -> Iterator[None]:
        """Turn what a request raises into errors of ours; subclasses add the exceptions of their libraries.

        Args:
            timeout_s: the deadline of an inference; None for requests that take no time.
        """
        try:
            yield
        except RefusedError as refusal:
            raise self._refused(refusal.status, " ".join(refusal.message.split()), timeout_s) from refusal
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            if isinstance(error, KeyError):
                problem = f"an answer without {error}"
            else:
                problem = str(error) if isinstance(error, ValueError) else "an answer with fields of other types"
            raise InferenceError(f"{self.url} sent no valid answer: {problem}") from error

    def _refused(self, status: str, message: str, timeout_s: float | None) -> GominError:
        if _CLOSED in message:
            return AccessError(
                f"{self.url} refuses access ({brief(message)}): gomin-server closed this with a secret that it does "
                "not show. Restart it with a secret of your own, for model lists with "
                "--grpc-restricted-protocol=model-repository:KEY=SECRET (HTTP: --http-restricted-api=…), and send it "
                "with `Connection(headers=…)`; or restart it with --open-admin"
            )
        if status in _NO_ACCESS or _RESTRICTED in message:
            return AccessError(
                f"{self.url} refuses access: {brief(message)}; send what it asks for with `Connection(headers=…)`, or "
                "`Connection(ca=…, certificate=…, key=…)`"
            )
        if any(words in message for words in _OVERLOADED):
            advice = "try again later, or with fewer requests at a time"
            return ServerError(f"{self.url} is overloaded ({brief(message)})", advice)
        if status in _TOO_LATE:
            return self.too_late(timeout_s)
        if status in _UNREACHABLE:
            return self.unreachable(message)
        if any(text in message for text in _RESTARTING):
            return ServerError(f"{self.url} must be restarted, or is restarting ({brief(message)})")
        if status in _BAD_REQUEST:
            return ContractError(f"{self.url} refused the request: {message[:500]}")
        return InferenceError(f"{self.url} answered: {message[:500]}")

    def too_late(self, timeout_s: float | None) -> GominError:
        """The error of a request whose deadline passed."""
        if timeout_s is None:
            return self.unreachable("no answer")
        return DeadlineError(
            f"{self.url} did not answer within {timeout_s:g} s: it hangs, is overloaded, or needs more time for "
            "this much audio: `Connection(timeout_s=…)`"
        )

    def unreachable(self, reason: str, kind: type[ServerError] = ServerError) -> ServerError:
        """The error of a server that cannot be reached or is unavailable."""
        return kind(
            f"no Triton server at {self.url} ({brief(reason)})",
            "start one with `gomin-server --model-repository model_repository`, or run in-process: "
            '`Vocoder("local:model_repository")`',
        )


def _ready_models(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({str(entry.get("name")) for entry in entries if entry.get("state") == "READY"})


def brief(reason: str) -> str:
    """The informative part of gRPC's texts: what follows "last error: ", if there is such a part."""
    return reason.rpartition("last error: ")[2][:200]


def datatype(array: NDArray[Any]) -> str:
    """Triton's name of an array's dtype."""
    return _NAMES[array.dtype.newbyteorder("<")]


def encode(array: NDArray[Any]) -> bytes:
    """The bytes of a tensor."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def decode(name: str, datatype: object, shape: Sequence[object], data: bytes | memoryview) -> NDArray[Any]:
    """A tensor from its bytes.

    Args:
        name: its name, for messages.
        datatype: Triton's name of its dtype.
        shape: its shape.
        data: its bytes.

    Raises:
        ValueError: an unknown dtype, no shape, or a number of bytes that the shape does not have.
    """
    dtype = DTYPES.get(str(datatype))
    if dtype is None:
        raise ValueError(f"output {name!r} is of type {datatype!r}")
    sizes = [size for size in shape if isinstance(size, int) and not isinstance(size, bool) and size >= 0]
    if len(sizes) != len(shape):
        raise ValueError(f"output {name!r} has shape {list(shape)}")
    if math.prod(sizes) * dtype.itemsize != len(data):
        raise ValueError(f"output {name!r} of shape {sizes} comes in {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(sizes)
