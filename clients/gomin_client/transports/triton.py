"""What gRPC and HTTP have in common: Triton's answers and errors. tritonclient's exceptions end here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from gomin_client.errors import (
    AccessError,
    ContractError,
    DeadlineError,
    InferenceError,
    ModelNotReadyError,
    ServerError,
    UnknownModelError,
)
from gomin_client.transports.base import ModelInfo, Statistics, Tensors, unknown_model

CONNECT_TIMEOUT_S = 10.0  # of everything but inference

# gRPC's names and HTTP's numbers of the same things; some of HTTP's come from proxies, Triton has few
_UNREACHABLE = ("StatusCode.UNAVAILABLE", "429", "502", "503", "504")
_TOO_LATE = ("StatusCode.DEADLINE_EXCEEDED",)
_BAD_REQUEST = ("StatusCode.INVALID_ARGUMENT", "400")
_NO_ACCESS = ("StatusCode.UNAUTHENTICATED", "StatusCode.PERMISSION_DENIED", "401", "403")
_RESTRICTED = "protocol is restricted"  # Triton answers so, as unavailable, where a header is missing


class TritonTransport:
    """What both protocols share; tritonclient has the same method names in both, with other types of answers."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def url(self) -> str:
        """The URL that leads here."""
        return self._url

    @property
    def servers(self) -> int:
        """See `Transport.servers`."""
        return 1

    def models(self) -> list[str]:
        """See `Transport.models`."""
        return sorted({entry["name"] for entry in self._checked_index() if entry.get("state") == "READY"})

    def describe(self, model: str) -> ModelInfo:
        """See `Transport.describe`."""
        entries = self._checked_index()
        mine = [entry for entry in entries if entry["name"] == model]
        if not mine:
            available = sorted({entry["name"] for entry in entries if entry.get("state") == "READY"})
            raise UnknownModelError(unknown_model(self.url, model, available))
        ready = sorted(int(entry["version"]) for entry in mine if entry.get("state") == "READY")
        if not ready:
            reason = mine[0].get("reason") or mine[0].get("state") or "no state"
            raise ModelNotReadyError(f"{self.url}: model {model} is not ready: {brief(reason)}")
        with self.errors():
            parameters, max_batch_size = self._config(model)
        return ModelInfo(model, tuple(ready), parameters, max_batch_size)

    def statistics(self, model: str, version: int) -> Statistics:
        """See `Transport.statistics`."""
        with self.errors():
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

    def _checked_index(self) -> list[dict[str, str]]:
        try:
            with self.errors():
                if not self._server_live():
                    raise ServerError(f"{self.url}: the server is there but not live yet; its log says why")
                return self._index()
        except (InferenceError, ContractError, ValueError) as error:  # ValueError: an answer that is no JSON
            raise ServerError(f"what listens at {self.url} does not answer as a Triton server does: {error}") from error

    def _server_live(self) -> bool:
        raise NotImplementedError

    def _index(self) -> list[dict[str, str]]:
        """Name, version, state and reason of every version of every model."""
        raise NotImplementedError

    def _config(self, model: str) -> tuple[dict[str, str], int]:
        """String parameters and max_batch_size."""
        raise NotImplementedError

    def _statistics(self, model: str, version: str) -> dict[str, Any]:
        raise NotImplementedError

    @contextmanager
    def errors(self, timeout_s: float | None = None) -> Iterator[None]:
        """Turn tritonclient's exceptions, and those that it lets through, into ours.

        Args:
            timeout_s: the deadline of an inference; None for requests that take no time.
        """
        try:
            yield
        except InferenceServerException as error:
            raise self._translated(str(error.status()), " ".join(str(error.message()).split()), timeout_s) from error
        except HTTPException as error:  # geventhttpclient: closed in the middle, or not HTTP at all
            raise self._unreachable(f"connection closed, or not an HTTP port: {error}") from error
        except TimeoutError as error:
            if timeout_s is None:
                raise self._unreachable("no answer") from error
            raise self._too_late(timeout_s) from error
        except OSError as error:  # refused, reset, no such host: geventhttpclient passes them on
            raise self._unreachable(str(error) or type(error).__name__) from error

    def _translated(self, status: str, message: str, timeout_s: float | None) -> Exception:
        if status in _NO_ACCESS or _RESTRICTED in message:
            return AccessError(f"{self.url} refuses access: {message}; send what it asks for with --header or --ssl-…")
        if status in _TOO_LATE and timeout_s is not None:
            return self._too_late(timeout_s)
        if status in _UNREACHABLE or status in _TOO_LATE:
            return self._unreachable(message)
        if status in _BAD_REQUEST:
            return ContractError(f"{self.url} refused the request: {message}")
        return InferenceError(f"{self.url} answered: {message}")

    def _too_late(self, timeout_s: float) -> DeadlineError:
        return DeadlineError(
            f"{self.url} did not answer within {timeout_s:g} s: it hangs, is overloaded, or needs more time for as "
            "much audio (--timeout)"
        )

    def _unreachable(self, reason: str) -> ServerError:
        return ServerError(
            f"no Triton server at {self.url} ({brief(reason)})",
            "start one with `gomin-server --model-repository model_repository`, or run in-process with "
            "`--url local:model_repository`",
        )


def wrap(infer_input: Callable[..., Any], inputs: Tensors) -> list[Any]:
    """Numpy arrays as the protocol's input tensors."""
    wrapped = []
    for name, array in inputs.items():
        tensor = infer_input(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        wrapped.append(tensor)
    return wrapped


def total(counted: Sequence[Statistics]) -> Statistics:
    """The sum of what several servers have counted."""
    return Statistics(*(sum(values) for values in zip(*(vars(one).values() for one in counted), strict=True)))


def brief(reason: str) -> str:
    """The part of gRPC's long-winded texts that says something: what follows "last error: ", if that stands there."""
    return reason.rpartition("last error: ")[2][:200]
