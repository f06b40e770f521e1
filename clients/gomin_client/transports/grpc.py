"""Triton over gRPC: one server, several among which gRPC balances, with or without TLS."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from gomin_client.contract.model import ModelContract
from gomin_client.errors import ContractError, ModelNotReadyError, ServerError, UsageError
from gomin_client.transports.address import Address, balanced_target, is_loopback, with_port
from gomin_client.transports.base import LONGEST_S, ModelInfo, Parameters, Tensors, Transport
from gomin_client.transports.connection import Connection
from gomin_client.transports.forking import (
    grpc_without_fork_handlers,
    keep_forever,
    renew_in_children,
    skip_destructors_in_children,
)
from gomin_client.transports.proxies import grpc_proxy
from gomin_client.transports.statistics import Statistics, total
from gomin_client.transports.triton import ASK_TIMEOUT_S, RefusedError, TritonTransport, brief, datatype, decode

with grpc_without_fork_handlers():
    import tritonclient.grpc

CONNECT_TIMEOUT_S = 10.0
DEFAULT_PORT = 8001

_process: int | None = None  # id of the first process that used gRPC: its threads and locks are not inherited
# Servers close connections of clients that ask for a sign of life more often than every 5 minutes (gRPC's default, and
# Triton's: --grpc-http2-min-recv-ping-interval-without-data).
_KEEPALIVE_MS = 310_000
_KEEPALIVE_TIMEOUT_MS = 20_000
_LONGEST_MESSAGE = 2**31 - 1  # tritonclient's own limits must be repeated where any option is given
_RECONNECT_MS = 1000  # so that a server that came back is found soon


def open_grpc(addresses: Sequence[Address], connection: Connection) -> Transport:
    """The transport of grpc://, grpcs:// and dns: URLs."""
    if addresses[0].scheme == "dns":
        addresses = [_named(addresses[0])]
    return GrpcTransport(addresses, connection)


def _named(address: Address) -> Address:
    """The address of dns:[//RESOLVER]/NAME with its port.

    Raises:
        UsageError: there is no name, or the port is not one.
    """
    host = address.place.rpartition("/")[2]
    if not host or not address.place.startswith("//"):
        raise UsageError(f"URL {address.url!r}: expected grpc://HOST:PORT, or dns:///NAME:PORT")
    try:
        return replace(address, place=address.place.removesuffix(host) + with_port(host, DEFAULT_PORT))
    except UsageError as error:
        raise UsageError(f"URL {address.url!r}: {error}") from error


class GrpcTransport(TritonTransport):
    """Triton over gRPC; one channel serves all threads."""

    def __init__(self, addresses: Sequence[Address], connection: Connection, through_proxy: bool = True) -> None:
        """Connect at the first request.

        Args:
            addresses: one server, or several that serve the same models.
            connection: its headers and TLS files are used here.
            through_proxy: whether to use the proxy of the environment, if it is for this server.

        Raises:
            UsageError: a TLS file cannot be read, or several hosts with TLS.
        """
        super().__init__(",".join(address.url for address in addresses))
        self._addresses = addresses
        self._headers = dict(connection.headers)
        self._asking: dict[str, Any] = {"client_timeout": ASK_TIMEOUT_S, "headers": self._headers or None}
        self._tls: dict[str, Any] = {}
        self._options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", _LONGEST_MESSAGE),
            ("grpc.max_receive_message_length", _LONGEST_MESSAGE),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", int(1000 * CONNECT_TIMEOUT_S)),  # the timeout of connecting
            ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS),
        ]
        host = addresses[0].host_and_port[0]
        # a proxy cannot reach this machine's own addresses, and gRPC sends it a list of servers as one host
        direct = not through_proxy or len(addresses) > 1 or is_loopback(host)
        self._proxy = None if direct else grpc_proxy(host)
        if direct:
            self._options.append(("grpc.enable_http_proxy", 0))
        if len(addresses) > 1 or addresses[0].scheme == "dns":
            self._options.append(("grpc.lb_policy_name", "round_robin"))
        if connection.wants_tls or addresses[0].scheme == "grpcs":
            files = {
                "root_certificates": connection.ca,
                "certificate_chain": connection.certificate,
                "private_key": connection.key,
            }
            self._tls = {"ssl": True, **{name: _readable(path) for name, path in files.items() if path is not None}}
            if len(addresses) > 1:
                hosts = {address.host_and_port[0] for address in addresses}
                if len(hosts) > 1:
                    raise UsageError(
                        f"{self.url}: with TLS, several servers share one name: give it as dns:///NAME:PORT "
                        "with `Connection(tls=True)`"
                    )
                self._options.append(("grpc.ssl_target_name_override", hosts.pop()))
        self._channel: Any = None
        self._lock = threading.Lock()
        renew_in_children(self)
        # with several servers, one way to each of them, to ask whether they serve the same
        self._members = [GrpcTransport([one], connection, False) for one in addresses] if len(addresses) > 1 else []

    @property
    def servers(self) -> int:
        """See `Transport.servers`."""
        return len(self._addresses)

    def describe(self, model: str) -> ModelInfo:
        """See `Transport.describe`; with several servers, all that answer must agree.

        Raises:
            ContractError: two servers have other models under one name.
        """
        if not self._members:
            return super().describe(model)
        found: list[tuple[str, ModelInfo]] = []
        failed: ServerError | None = None
        for member in self._members:
            try:
                found.append((member.url, member.describe(model)))
            except ServerError as error:
                failed = error
        if not found:
            assert failed is not None  # there is at least one member
            raise failed
        versions = set.intersection(*(set(info.versions) for _, info in found))
        if not versions:
            raise ModelNotReadyError(f"{self.url}: these servers have no version of model {model} in common")
        first_url, first = found[0]
        contract = ModelContract.from_parameters(model, first.parameters)
        for url, info in found[1:]:
            if not contract.same_model(ModelContract.from_parameters(model, info.parameters), max(versions)):
                raise ContractError(
                    f"{first_url} and {url} serve different models as {model} version {max(versions)}: a file must "
                    "not be made by both; serve the same model repository from all"
                )
        return ModelInfo(
            model, tuple(sorted(versions)), first.parameters, min(info.max_batch_size for _, info in found)
        )

    @property
    def can_stream(self) -> bool:
        """See `Transport.can_stream`."""
        return True

    def infer(
        self,
        model: str,
        version: int,
        inputs: Tensors,
        timeout_s: float = LONGEST_S,
        parameters: Parameters | None = None,
    ) -> dict[str, NDArray[Any]]:
        """See `Transport.infer`."""
        with self.errors(timeout_s):
            result = self._client.infer(
                model,
                _wrapped(inputs),
                str(version),
                client_timeout=timeout_s,
                headers=self._headers or None,
                parameters=dict(parameters or {}),
            )
            return _tensors(result.get_response())

    def infer_stream(
        self,
        model: str,
        version: int,
        inputs: Tensors,
        timeout_s: float = LONGEST_S,
        parameters: Parameters | None = None,
    ) -> Generator[dict[str, NDArray[Any]]]:
        """See `Transport.infer_stream`. A connection of its own: tritonclient has one stream for each client."""
        answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        ends_at = time.monotonic() + timeout_s
        _ = self._client  # refuses processes that were forked
        client = self._connected()
        is_complete = False
        try:
            with self.errors(timeout_s):
                client.start_stream(
                    lambda result, error: answers.put((result, error)), timeout_s, headers=self._headers or None
                )
                client.async_stream_infer(
                    model,
                    _wrapped(inputs),
                    str(version),
                    enable_empty_final_response=True,
                    parameters=dict(parameters or {}),
                )
            while not is_complete:
                with self.errors(timeout_s):
                    try:
                        result, error = answers.get(timeout=max(0.0, ends_at - time.monotonic()))
                    except queue.Empty:
                        raise self.too_late(timeout_s) from None
                    if error is not None:
                        raise error
                    answer = result.get_response()
                    is_complete = answer.parameters["triton_final_response"].bool_param
                    tensors = _tensors(answer)
                if tensors:
                    yield tensors
        finally:
            client.stop_stream(cancel_requests=not is_complete)
            client.close()

    def statistics(self, model: str, version: int) -> Statistics:
        """See `Transport.statistics`; of several servers, the sum over those that answer."""
        if not self._members:
            return super().statistics(model, version)
        counted = []
        failed: ServerError | None = None
        for member in self._members:
            try:
                counted.append(member.statistics(model, version))
            except ServerError as error:
                failed = error
        if failed is not None and not counted:
            raise failed
        return total(counted)

    def close(self) -> None:
        """See `Transport.close`."""
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        for member in self._members:
            member.close()

    @contextmanager
    def errors(self, timeout_s: float | None = None) -> Iterator[None]:
        """See `TritonTransport.errors`."""
        with super().errors(timeout_s):
            try:
                yield
            except InferenceServerException as error:
                raise RefusedError(str(error.status()), str(error.message())) from error
            except OSError as error:  # a name that cannot be resolved
                raise self.unreachable(str(error) or type(error).__name__) from error

    def unreachable(self, reason: str, kind: type[ServerError] = ServerError) -> ServerError:
        """See `TritonTransport.unreachable`; the message names a proxy that is in the way."""
        if self._proxy is None:
            return super().unreachable(reason, kind)
        host = self._addresses[0].host_and_port[0]
        return kind(
            f"no Triton server at {self.url} through the proxy {self._proxy.url}, which the environment variable "
            f"{self._proxy.variable} sets ({brief(reason)})",
            f"add {host} to {self._proxy.exceptions} to connect without a proxy",
        )

    def after_fork(self) -> None:
        """Leave the channel to the parent; see `Forkable`."""
        keep_forever(self._channel)
        self._channel = None
        self._lock = threading.Lock()

    @property
    def _client(self) -> Any:
        """Made when it is first used, since names of several servers are looked up for it.

        Raises:
            UsageError: the process was forked from one that has used gRPC.
        """
        global _process
        with self._lock:
            if self._channel is None:
                _process = _process or os.getpid()
                if _process != os.getpid():
                    raise UsageError(
                        f"{self.url}: gRPC does not work in a process that was forked from one that has used gRPC; "
                        'use http:// there, start processes with the method "spawn" or "forkserver", or connect for '
                        "the first time after the fork"
                    )
                skip_destructors_in_children()
                self._channel = self._connected()
            return self._channel

    def _connected(self) -> Any:
        address = self._addresses[0]
        target = f"dns:{address.place}" if address.scheme == "dns" else address.place
        if len(self._addresses) > 1:
            target = balanced_target(self._addresses)
        return tritonclient.grpc.InferenceServerClient(target, channel_args=self._options, **self._tls)

    def _server_live(self) -> bool:
        return bool(self._client.is_server_live(**self._asking))

    def _server_metadata(self) -> dict[str, Any]:
        return dict(self._client.get_server_metadata(as_json=True, **self._asking))

    def _index(self) -> list[dict[str, str]]:
        index = self._client.get_model_repository_index(**self._asking)
        return [
            {"name": entry.name, "version": entry.version, "state": entry.state, "reason": entry.reason}
            for entry in index.models
        ]

    def _config(self, model: str) -> tuple[dict[str, str], int]:
        config = self._client.get_model_config(model, **self._asking).config
        return {name: value.string_value for name, value in config.parameters.items()}, config.max_batch_size

    def _statistics(self, model: str, version: str) -> dict[str, Any]:
        answer = self._client.get_inference_statistics(model, version, as_json=True, **self._asking)
        return dict(answer["model_stats"][0])


def _wrapped(inputs: Tensors) -> list[Any]:
    wrapped = []
    for name, array in inputs.items():
        wrapped.append(tritonclient.grpc.InferInput(name, list(array.shape), datatype(array)))
        wrapped[-1].set_data_from_numpy(np.ascontiguousarray(array))
    return wrapped


def _tensors(answer: Any) -> dict[str, NDArray[Any]]:
    """The tensors of a ModelInferResponse."""
    if len(answer.outputs) != len(answer.raw_output_contents):
        raise ValueError(f"{len(answer.outputs)} outputs, {len(answer.raw_output_contents)} of them with data")
    return {
        output.name: decode(output.name, output.datatype, output.shape, data)
        for output, data in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def _readable(path: Path) -> str:
    try:
        path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    return str(path)
