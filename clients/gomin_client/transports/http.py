"""Triton over HTTP and HTTPS."""

from __future__ import annotations

import math
import threading
from typing import Any

import tritonclient.http
from gevent.hub import Hub
from numpy.typing import NDArray

from gomin_client.errors import Interrupted
from gomin_client.transports.address import Address
from gomin_client.transports.base import LONGEST_S, Parameters, Tensors
from gomin_client.transports.connection import Connection
from gomin_client.transports.triton import CONNECT_TIMEOUT_S, TritonTransport, wrap


class HttpTransport(TritonTransport):
    """Triton over HTTP; tritonclient's HTTP client is not safe to share, so every thread has its own."""

    def __init__(self, address: Address, connection: Connection) -> None:
        """Connect at the first request.

        Args:
            address: of the server.
            connection: its headers and TLS files are used here.
        """
        _let_interrupts_through_gevent()
        super().__init__(address.url)
        self._place = address.place
        self._headers = dict(connection.headers)
        self._tls: dict[str, Any] = {}
        if address.scheme == "https":
            files = {"ca_certs": connection.ca, "certfile": connection.certificate, "keyfile": connection.key}
            given = {name: str(path) for name, path in files.items() if path is not None}
            self._tls = {"ssl": True, "ssl_options": given}
        self._local = threading.local()
        self._lock = threading.Lock()
        self._clients: list[Any] = []

    def infer(
        self,
        model: str,
        version: int,
        inputs: Tensors,
        timeout_s: float = LONGEST_S,
        parameters: Parameters | None = None,
    ) -> dict[str, NDArray[Any]]:
        """See `Transport.infer`; the deadline is that of every wait for the server, rounded up to a power of two."""
        timeout_s = 2.0 ** math.ceil(math.log2(max(timeout_s, 1)))
        with self.errors(timeout_s):
            client = self._client(timeout_s)
            wrapped = wrap(tritonclient.http.InferInput, inputs)
            result = client.infer(
                model, wrapped, str(version), headers=self._headers, parameters=dict(parameters or {})
            )
            return {output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]}

    def close(self) -> None:
        """See `Transport.close`."""
        with self._lock:
            clients, self._clients = self._clients, []
        for client in clients:
            client.close()
        self._local = threading.local()

    def _client(self, timeout_s: float) -> Any:
        """This thread's client for answers that may take so many seconds: a client has one timeout for all it does."""
        clients = self._local.__dict__.setdefault("clients", {})
        if timeout_s not in clients:
            clients[timeout_s] = tritonclient.http.InferenceServerClient(
                self._place, connection_timeout=CONNECT_TIMEOUT_S, network_timeout=timeout_s, **self._tls
            )
            with self._lock:
                self._clients.append(clients[timeout_s])
        return clients[timeout_s]

    def _server_live(self) -> bool:
        return bool(self._client(CONNECT_TIMEOUT_S).is_server_live(headers=self._headers))

    def _index(self) -> list[dict[str, str]]:
        return list(self._client(CONNECT_TIMEOUT_S).get_model_repository_index(headers=self._headers))

    def _config(self, model: str) -> tuple[dict[str, str], int]:
        config = self._client(CONNECT_TIMEOUT_S).get_model_config(model, headers=self._headers)
        parameters = {name: str(value.get("string_value", "")) for name, value in config.get("parameters", {}).items()}
        return parameters, int(config.get("max_batch_size", 0))

    def _statistics(self, model: str, version: str) -> dict[str, Any]:
        client = self._client(CONNECT_TIMEOUT_S)
        return dict(client.get_inference_statistics(model, version, headers=self._headers)["model_stats"][0])


def _let_interrupts_through_gevent() -> None:
    """Exceptions that are raised in gevent's event loop are printed and dropped there, but for those it knows."""
    if Interrupted not in Hub.SYSTEM_ERROR:
        Hub.SYSTEM_ERROR = (*Hub.SYSTEM_ERROR, Interrupted)
        Hub.NOT_ERROR = (*Hub.NOT_ERROR, Interrupted)
