"""A transport around another one."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from numpy.typing import NDArray

from gomin_client.transports.base import LONGEST_S, ModelInfo, Parameters, ServerInfo, Tensors, Transport
from gomin_client.transports.statistics import Statistics


class TransportWrapper(Transport):
    """Passes every call on to another transport; a subclass redefines what it does differently."""

    def __init__(self, inner: Transport) -> None:
        """Wrap a transport."""
        self._inner = inner

    @property
    def url(self) -> str:
        """See `Transport.url`."""
        return self._inner.url

    @property
    def servers(self) -> int:
        """See `Transport.servers`."""
        return self._inner.servers

    @property
    def can_stream(self) -> bool:
        """See `Transport.can_stream`."""
        return self._inner.can_stream

    def server(self) -> ServerInfo | None:
        """See `Transport.server`."""
        return self._inner.server()

    def models(self) -> list[str]:
        """See `Transport.models`."""
        return self._inner.models()

    def describe(self, model: str) -> ModelInfo:
        """See `Transport.describe`."""
        return self._inner.describe(model)

    def prepare(self, model: str, version: int) -> None:
        """See `Transport.prepare`."""
        self._inner.prepare(model, version)

    def infer(
        self,
        model: str,
        version: int,
        inputs: Tensors,
        timeout_s: float = LONGEST_S,
        parameters: Parameters | None = None,
    ) -> dict[str, NDArray[Any]]:
        """See `Transport.infer`."""
        return self._inner.infer(model, version, inputs, timeout_s, parameters)

    def infer_stream(
        self,
        model: str,
        version: int,
        inputs: Tensors,
        timeout_s: float = LONGEST_S,
        parameters: Parameters | None = None,
    ) -> Generator[dict[str, NDArray[Any]]]:
        """See `Transport.infer_stream`."""
        return self._inner.infer_stream(model, version, inputs, timeout_s, parameters)

    def statistics(self, model: str, version: int) -> Statistics | None:
        """See `Transport.statistics`."""
        return self._inner.statistics(model, version)

    def close(self) -> None:
        """See `Transport.close`."""
        self._inner.close()
