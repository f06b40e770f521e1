"""Triton over HTTP and HTTPS."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException, RemoteDisconnected
from pathlib import Path
from typing import Any
from urllib.parse import quote

from numpy.typing import NDArray

from gomin_client.errors import IncompleteAnswerError, UsageError
from gomin_client.transports.address import Address
from gomin_client.transports.base import LONGEST_S, Parameters, Tensors, Transport
from gomin_client.transports.connection import Connection
from gomin_client.transports.http_client import Answer, HttpClient, IncompleteError
from gomin_client.transports.triton import ASK_TIMEOUT_S, RefusedError, TritonTransport, datatype, decode, encode

_JSON_LENGTH = "inference-header-content-length"  # bytes of JSON in front of the tensors
_MOST_METADATA = 1 << 24  # bytes of an answer about models
# bytes of an answer to an inference: a mel of M bands becomes hop_length / M times as many samples
_LEAST_LIMIT = 1 << 26
_MOST_PER_BYTE = 1024


def open_http(addresses: Sequence[Address], connection: Connection) -> Transport:
    """The transport of http:// and https:// URLs."""
    (address,) = addresses
    if address.scheme == "http":
        connection.refuse_tls(address.url)
    return HttpTransport(address, connection)


class HttpTransport(TritonTransport):
    """Triton over HTTP; threads share its connections."""

    def __init__(self, address: Address, connection: Connection) -> None:
        """Connect at the first request.

        Args:
            address: the server.
            connection: its headers and TLS files are used here.

        Raises:
            UsageError: a TLS file cannot be read.
        """
        super().__init__(address.url)
        self._headers = dict(connection.headers)
        context = _tls_context(connection) if address.scheme == "https" else None
        self._client = HttpClient(*address.host_and_port, context)

    def infer(
        self,
        model: str,
        version: int,
        inputs: Tensors,
        timeout_s: float = LONGEST_S,
        parameters: Parameters | None = None,
    ) -> dict[str, NDArray[Any]]:
        """See `Transport.infer`."""
        tensors = {name: encode(array) for name, array in inputs.items()}
        request = {
            "parameters": {"binary_data_output": True, **(parameters or {})},
            "inputs": [
                {
                    "name": name,
                    "shape": list(array.shape),
                    "datatype": datatype(array),
                    "parameters": {"binary_data_size": len(tensors[name])},
                }
                for name, array in inputs.items()
            ],
        }
        header = json.dumps(request).encode()
        body = b"".join([header, *tensors.values()])
        with self.errors(timeout_s):
            answer = self._client.request(
                "POST",
                f"/v2/models/{quote(model, safe='')}/versions/{version}/infer",
                {**self._headers, _JSON_LENGTH: str(len(header)), "content-type": "application/octet-stream"},
                body,
                timeout_s,
                _LEAST_LIMIT + _MOST_PER_BYTE * len(body),
            )
            return _outputs(_checked(answer))

    def close(self) -> None:
        """See `Transport.close`."""
        self._client.close()

    def _server_live(self) -> bool:
        answer = self._ask("GET", "/v2/health/live")
        if answer.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE):
            return False
        _checked(answer)
        return True

    def _server_metadata(self) -> Mapping[str, Any]:
        return dict(_json(_checked(self._ask("GET", "/v2")).body))

    def _index(self) -> list[dict[str, Any]]:
        index = _json(_checked(self._ask("POST", "/v2/repository/index")).body)
        if not isinstance(index, list):
            raise ValueError(f"an index that is a {type(index).__name__}")
        return [dict(entry) for entry in index]

    def _config(self, model: str) -> tuple[dict[str, str], int]:
        config = _json(_checked(self._ask("GET", f"/v2/models/{quote(model, safe='')}/config")).body)
        parameters = {name: str(value.get("string_value", "")) for name, value in config.get("parameters", {}).items()}
        return parameters, int(config.get("max_batch_size", 0))

    def _statistics(self, model: str, version: str) -> Mapping[str, Any]:
        answer = _checked(self._ask("GET", f"/v2/models/{quote(model, safe='')}/versions/{version}/stats"))
        return dict(_json(answer.body)["model_stats"][0])

    def _ask(self, method: str, path: str) -> Answer:
        return self._client.request(method, path, self._headers, b"", ASK_TIMEOUT_S, _MOST_METADATA)

    @contextmanager
    def errors(self, timeout_s: float | None = None) -> Iterator[None]:
        """See `TritonTransport.errors`."""
        with super().errors(timeout_s):
            try:
                yield
            except IncompleteError as error:
                raise self.unreachable(str(error), kind=IncompleteAnswerError) from error
            except RemoteDisconnected as error:
                raise self.unreachable("connection closed") from error
            except HTTPException as error:
                if timeout_s is None:
                    raise self.unreachable(f"not an HTTP port: {error!r}") from error
                raise ValueError(f"an answer that is not HTTP: {error!r}") from error
            except TimeoutError as error:
                raise self.too_late(timeout_s) from error
            except OSError as error:
                raise self.unreachable(str(error) or type(error).__name__) from error


def _tls_context(connection: Connection) -> ssl.SSLContext:
    path: Path | None = connection.ca
    try:
        context = ssl.create_default_context(cafile=path)
        if connection.certificate is not None:
            path = connection.certificate
            context.load_cert_chain(path, connection.key)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as PEM: {error.strerror or error}") from error
    return context


def _checked(answer: Answer) -> Answer:
    """The same answer, if it is a success that can be read.

    Raises:
        RefusedError: it is an error.
        ValueError: it is compressed, although the request does not allow that.
    """
    if answer.status != HTTPStatus.OK:
        try:
            message = str(json.loads(answer.body)["error"])
        except (ValueError, TypeError, KeyError):
            text = answer.body[:200].decode(errors="replace")
            message = f"HTTP status {answer.status}, {text!r}" if text else f"HTTP status {answer.status}"
        raise RefusedError(str(answer.status), message)
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise ValueError(f"an answer in the encoding {answer.headers['content-encoding']!r}")
    return answer


def _json(data: bytes) -> Any:
    """JSON.

    Raises:
        ValueError: it is something else; the message shows how it begins.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"an answer that is not JSON: {data[:60].decode(errors='replace')!r}") from error


def _outputs(answer: Answer) -> dict[str, NDArray[Any]]:
    """Name → tensor of an answer to an inference: JSON, then the bytes of the tensors in the same order.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is not that.
    """
    if _JSON_LENGTH not in answer.headers:
        _json(answer.body)
        raise ValueError(f"an answer without the header {_JSON_LENGTH}")
    given = answer.headers[_JSON_LENGTH]
    if not re.fullmatch("[0-9]{1,18}", given):
        raise ValueError(f"an answer whose header {_JSON_LENGTH} is {given[:40]!r}; expected a number of bytes")
    length = int(given)
    if length > len(answer.body):
        raise ValueError(f"an answer of {len(answer.body)} bytes, {length} of them JSON")
    data = memoryview(answer.body)[length:]
    outputs = {}
    first = 0
    for output in _json(answer.body[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        outputs[str(output["name"])] = decode(
            str(output["name"]), output["datatype"], output["shape"], data[first : first + size]
        )
        first += size
    if first != len(data):
        raise ValueError(f"outputs of {first} bytes in an answer with {len(data)}")
    return outputs
