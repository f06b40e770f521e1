"""Triton servers, over gRPC and over HTTP. tritonclient's exceptions end here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from gomin_client.errors import (
    ContractError,
    InferenceError,
    Interrupted,
    ModelNotReadyError,
    ServerError,
    UnknownModelError,
)
from gomin_client.transports.base import ModelInfo, Statistics, Tensors, unknown_model

INFER_TIMEOUT_S = 3600.0  # the chain of a long recording takes minutes on a CPU
_CONNECT_TIMEOUT_S = 10.0

_UNREACHABLE = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "502", "503", "504")
_BAD_REQUEST = ("StatusCode.INVALID_ARGUMENT", "400")

T = TypeVar("T")


class _TritonTransport:
    """What both protocols share; tritonclient has the same method names in both, with other types of answers."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def url(self) -> str:
        """The URL that leads here."""
        return self._url

    def models(self) -> list[str]:
        """See `Transport.models`."""
        return sorted({entry["name"] for entry in self._index() if entry.get("state") == "READY"})

    def describe(self, model: str) -> ModelInfo:
        """See `Transport.describe`."""
        entries = self._index()
        mine = [entry for entry in entries if entry["name"] == model]
        if not mine:
            available = sorted({entry["name"] for entry in entries if entry.get("state") == "READY"})
            raise UnknownModelError(unknown_model(self.url, model, available))
        ready = sorted(int(entry["version"]) for entry in mine if entry.get("state") == "READY")
        if not ready:
            reason = mine[0].get("reason") or mine[0].get("state") or "no state"
            raise ModelNotReadyError(f"{self.url}: model {model} is not ready: {_brief(reason)}")
        with self._errors():
            parameters, max_batch_size = self._config(model)
        return ModelInfo(model, tuple(ready), parameters, max_batch_size)

    def statistics(self, model: str, version: int) -> Statistics:
        """See `Transport.statistics`."""
        with self._errors():
            counted = self._statistics(model, str(version))

        def seconds(name: str) -> float:
            return int(counted.get("inference_stats", {}).get(name, {}).get("ns", 0)) / 1e9

        return Statistics(
            inferences=int(counted.get("inference_count", 0)),
            executions=int(counted.get("execution_count", 0)),
            queue_s=seconds("queue"),
            compute_input_s=seconds("compute_input"),
            compute_s=seconds("compute_infer"),
            compute_output_s=seconds("compute_output"),
            requests=int(counted.get("inference_stats", {}).get("success", {}).get("count", 0)),
        )

    def _statistics(self, model: str, version: str) -> dict[str, Any]:
        raise NotImplementedError

    def _index(self) -> list[dict[str, str]]:
        try:
            with self._errors():
                if not self._server_live():
                    raise ServerError(f"{self.url}: the server is there but not live yet; its log says why")
                return self._repository_index()
        except (InferenceError, ContractError, ValueError) as error:  # ValueError: an answer that is no JSON
            raise ServerError(f"what listens at {self.url} does not answer as a Triton server does: {error}") from error

    def _server_live(self) -> bool:
        raise NotImplementedError

    def _repository_index(self) -> list[dict[str, str]]:
        raise NotImplementedError

    def _config(self, model: str) -> tuple[dict[str, str], int]:
        """String parameters and max_batch_size."""
        raise NotImplementedError

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn tritonclient's exceptions, and those that it lets through, into ours."""
        try:
            yield
        except InferenceServerException as error:
            message = " ".join(str(error.message()).split())
            if error.status() in _UNREACHABLE:
                raise self._unreachable(message) from error
            if error.status() in _BAD_REQUEST:
                raise ContractError(f"{self.url} refused the request: {message}") from error
            raise InferenceError(f"{self.url} answered: {message}") from error
        except HTTPException as error:  # geventhttpclient: closed in the middle, or not HTTP at all
            raise self._unreachable(f"connection closed, or not an HTTP port: {error}") from error
        except OSError as error:  # refused, reset, timed out, no such host: geventhttpclient passes them on
            raise self._unreachable(str(error) or type(error).__name__) from error

    def _unreachable(self, reason: str) -> ServerError:
        return ServerError(
            f"no Triton server at {self.url} ({_brief(reason)}): start one with "
            "`gomin-server --model-repository model_repository`, or run in-process with `--url local:model_repository`"
        )


class GrpcTransport(_TritonTransport):
    """Triton over gRPC; one channel serves all threads."""

    def __init__(self, address: str) -> None:
        """Args: address: HOST:PORT."""
        import tritonclient.grpc

        super().__init__(f"grpc://{address}")
        self._module = tritonclient.grpc
        self._client = tritonclient.grpc.InferenceServerClient(address)

    def infer(self, model: str, version: int, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """See `Transport.infer`."""
        with self._errors():
            result = self._client.infer(
                model, _wrap(self._module.InferInput, inputs), str(version), client_timeout=INFER_TIMEOUT_S
            )
            return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}

    def close(self) -> None:
        """See `Transport.close`."""
        self._client.close()

    def _statistics(self, model: str, version: str) -> dict[str, Any]:
        answer = self._client.get_inference_statistics(model, version, as_json=True, client_timeout=_CONNECT_TIMEOUT_S)
        return dict(answer["model_stats"][0])

    def _server_live(self) -> bool:
        return bool(self._client.is_server_live(client_timeout=_CONNECT_TIMEOUT_S))

    def _repository_index(self) -> list[dict[str, str]]:
        index = self._client.get_model_repository_index(client_timeout=_CONNECT_TIMEOUT_S)
        return [
            {"name": entry.name, "version": entry.version, "state": entry.state, "reason": entry.reason}
            for entry in index.models
        ]

    def _config(self, model: str) -> tuple[dict[str, str], int]:
        config = self._client.get_model_config(model, client_timeout=_CONNECT_TIMEOUT_S).config
        return {name: value.string_value for name, value in config.parameters.items()}, config.max_batch_size


class HttpTransport(_TritonTransport):
    """Triton over HTTP; tritonclient's HTTP client is not safe to share, so every thread has its own."""

    def __init__(self, address: str) -> None:
        """Args: address: HOST:PORT."""
        import tritonclient.http

        _let_interrupts_through_gevent()
        super().__init__(f"http://{address}")
        self._module = tritonclient.http
        self._address = address
        self._local = threading.local()
        self._clients: list[Any] = []

    def infer(self, model: str, version: int, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """See `Transport.infer`."""
        with self._errors():
            client = self._client(INFER_TIMEOUT_S)
            result = client.infer(model, _wrap(self._module.InferInput, inputs), str(version))
            return {output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]}

    def close(self) -> None:
        """See `Transport.close`."""
        while self._clients:
            self._clients.pop().close()
        self._local = threading.local()

    def _client(self, timeout: float) -> Any:
        """This thread's client for answers that may take so many seconds: a client has one timeout for all it does."""
        clients = self._local.__dict__.setdefault("clients", {})
        if timeout not in clients:
            clients[timeout] = self._module.InferenceServerClient(
                self._address, connection_timeout=_CONNECT_TIMEOUT_S, network_timeout=timeout
            )
            self._clients.append(clients[timeout])
        return clients[timeout]

    def _statistics(self, model: str, version: str) -> dict[str, Any]:
        answer = self._client(_CONNECT_TIMEOUT_S).get_inference_statistics(model, version)
        return dict(answer["model_stats"][0])

    def _server_live(self) -> bool:
        return bool(self._client(_CONNECT_TIMEOUT_S).is_server_live())

    def _repository_index(self) -> list[dict[str, str]]:
        return list(self._client(_CONNECT_TIMEOUT_S).get_model_repository_index())

    def _config(self, model: str) -> tuple[dict[str, str], int]:
        config = self._client(_CONNECT_TIMEOUT_S).get_model_config(model)
        parameters = {name: str(value.get("string_value", "")) for name, value in config.get("parameters", {}).items()}
        return parameters, int(config.get("max_batch_size", 0))


def _let_interrupts_through_gevent() -> None:
    """Exceptions that are raised in gevent's event loop are printed and dropped there, but for those it knows."""
    from gevent.hub import Hub

    if Interrupted not in Hub.SYSTEM_ERROR:
        Hub.SYSTEM_ERROR = (*Hub.SYSTEM_ERROR, Interrupted)
        Hub.NOT_ERROR = (*Hub.NOT_ERROR, Interrupted)


def _wrap(infer_input: Callable[..., Any], inputs: Tensors) -> list[Any]:
    """Numpy arrays as the protocol's input tensors."""
    wrapped = []
    for name, array in inputs.items():
        tensor = infer_input(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        wrapped.append(tensor)
    return wrapped


def _brief(reason: str) -> str:
    """The part of gRPC's long-winded texts that says something: what follows "last error: ", if that stands there."""
    return reason.rpartition("last error: ")[2][:200]
