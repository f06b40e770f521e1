"""Triton over gRPC: one server, several among which gRPC balances, with or without TLS."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tritonclient.grpc
from numpy.typing import NDArray

from gomin_client.contract.model import ModelContract
from gomin_client.errors import ContractError, ModelNotReadyError, ServerError, UsageError
from gomin_client.transports.address import Address, balanced_target
from gomin_client.transports.base import LONGEST_S, ModelInfo, Parameters, Statistics, Tensors
from gomin_client.transports.connection import Connection
from gomin_client.transports.triton import CONNECT_TIMEOUT_S, TritonTransport, total, wrap

# Servers close connections of clients that ask for a sign of life more often than every 5 minutes (gRPC's default, and
# Triton's: --grpc-http2-min-recv-ping-interval-without-data).
_KEEPALIVE_MS = 310_000
_KEEPALIVE_TIMEOUT_MS = 20_000
_LONGEST_MESSAGE = 2**31 - 1  # tritonclient's own limits must be repeated where any option is given
_RECONNECT_MS = 1000  # a server that came back is to be found soon


class GrpcTransport(TritonTransport):
    """Triton over gRPC; one channel serves all threads."""

    def __init__(self, addresses: Sequence[Address], connection: Connection) -> None:
        """Connect at the first request.

        Args:
            addresses: of one server, or of several that serve the same models.
            connection: its headers and TLS files are used here.

        Raises:
            UsageError: a TLS file cannot be read, or several hosts with TLS.
        """
        super().__init__(",".join(address.url for address in addresses))
        self._addresses = addresses
        self._headers = dict(connection.headers)
        self._tls: dict[str, Any] = {}
        self._options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", _LONGEST_MESSAGE),
            ("grpc.max_receive_message_length", _LONGEST_MESSAGE),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", int(1000 * CONNECT_TIMEOUT_S)),  # which is the timeout of connecting
            ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS),
        ]
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
                        f"{self.url}: with TLS, several servers share one name: give it as dns:///NAME:PORT with --ssl"
                    )
                self._options.append(("grpc.ssl_target_name_override", hosts.pop()))
        # with several servers, one way to each of them, to ask whether they serve the same
        self._members = [GrpcTransport([address], connection) for address in addresses] if len(addresses) > 1 else []

    @property
    def servers(self) -> int:
        """See `Transport.servers`."""
        return len(self._addresses)

    def describe(self, model: str) -> ModelInfo:
        """See `Transport.describe`; of several servers, those that answer have to agree.

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
            wrapped = wrap(tritonclient.grpc.InferInput, inputs)
            result = self._client.infer(
                model,
                wrapped,
                str(version),
                client_timeout=timeout_s,
                headers=self._headers or None,
                parameters=dict(parameters or {}),
            )
            return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}

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
        if "_client" in self.__dict__:
            self._client.close()
        for member in self._members:
            member.close()

    @cached_property
    def _client(self) -> Any:
        """Made when it is first used, since names of several servers are looked up for it."""
        address = self._addresses[0]
        target = f"dns:{address.place}" if address.scheme == "dns" else address.place
        if len(self._addresses) > 1:
            target = balanced_target(self._addresses)
        return tritonclient.grpc.InferenceServerClient(target, channel_args=self._options, **self._tls)

    def _server_live(self) -> bool:
        return bool(self._client.is_server_live(**self._asking))

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

    @property
    def _asking(self) -> dict[str, Any]:
        return {"client_timeout": CONNECT_TIMEOUT_S, "headers": self._headers or None}


def _readable(path: Path) -> str:
    try:
        path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    return str(path)
