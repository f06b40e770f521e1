"""The model server behind the gateway: one connection for all requests, and a `Vocoder` on it for each."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from gomin_client.contract.model import DIFFUSION_STREAM, VOCODER_KINDS
from gomin_client.errors import ContractError, ServerError
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.tools.description import describe_model
from gomin_client.transports.base import LONGEST_S, Parameters, Tensors, Transport
from gomin_client.transports.connection import Connection
from gomin_client.transports.registry import Location, connect_once
from gomin_client.transports.wrapper import TransportWrapper
from gomin_client.vocoder import Vocoder
from gomin_gateway.problems import UnsuitableModelError
from gomin_gateway.schema import Model


class Backend:
    """The models of a server or repository; thread-safe.

    A model is described anew for each request: after a restart with other models, or when a new version was loaded,
    the next request gets what is there now.

    Attributes:
        connection: time limits of requests.
        in_flight: number of windows in flight, of each caller.
    """

    def __init__(self, urls: Sequence[Location] | Transport, connection: Connection, in_flight: int = 2) -> None:
        """Nothing is contacted yet.

        Args:
            urls: see `Vocoder`; or a transport that makes one attempt.
            connection: see `Vocoder`.
            in_flight: see `Vocoder`.

        Raises:
            UsageError: see `connect`.
        """
        inner = urls if isinstance(urls, Transport) else connect_once(urls, connection)
        self.connection = connection
        self.in_flight = in_flight
        self._inner = inner

    @property
    def url(self) -> str:
        """The address of the server, for logs."""
        return self._inner.url

    def lease(self) -> Transport:
        """The connection, for one caller: closing it waits for what this caller has in flight."""
        return _Lease(self._inner)

    def open(
        self, model: str, version: int | None, sampling: SamplerSettings | None = None, window: int | None = None
    ) -> Vocoder:
        """A model; see `Vocoder`.

        Raises:
            GominError: see `Vocoder`.
        """
        with model_errors():
            return Vocoder(
                self.lease(),
                model,
                connection=self.connection,
                window=window,
                in_flight=self.in_flight,
                sampling=sampling,
                version=version,
            )

    def models(self) -> list[dict[str, Any]]:
        """The models that make audio, as `Model` has them.

        Raises:
            ServerError: the server cannot be reached or is not ready.
        """
        infos = [self._inner.describe(name) for name in self._inner.models()]
        described = [describe_model(info) for info in infos]
        streamed = {
            model["name"].removesuffix("_stream"): {version["version"] for version in model["versions"]}
            for model in described
            if model.get("kind") == DIFFUSION_STREAM and self._inner.can_stream
        }
        return [
            {
                "sends_steps": max(info.versions) in streamed.get(info.name, ()),
                **{name: value for name, value in model.items() if name in Model.model_fields},
            }
            for info, model in zip(infos, described, strict=True)
            if model.get("kind") in VOCODER_KINDS
        ]

    def check_ready(self) -> None:
        """Ask the server whether it has models.

        Raises:
            ServerError: it cannot be reached, or has none.
        """
        if not self._inner.models():
            raise ServerError(f"{self.url} has no models; run gomin-export first")

    def close(self) -> None:
        """Close the connection; requests in flight end with an error."""
        self._inner.close()


@contextmanager
def model_errors() -> Iterator[None]:
    """Errors about a model that is opened: here it is the choice that is wrong, and no input.

    Raises:
        UnsuitableModelError: the model is not one that makes audio from a mel.
    """
    try:
        yield
    except ContractError as error:
        raise UnsuitableModelError(str(error)) from error


class _Lease(TransportWrapper):
    """Another transport, for one of its callers."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self._idle = threading.Condition()
        self._in_flight = 0

    def infer(
        self,
        model: str,
        version: int,
        inputs: Tensors,
        timeout_s: float = LONGEST_S,
        parameters: Parameters | None = None,
    ) -> dict[str, NDArray[Any]]:
        """See `Transport.infer`."""
        with self._idle:
            self._in_flight += 1
        try:
            return super().infer(model, version, inputs, timeout_s, parameters)
        finally:
            with self._idle:
                self._in_flight -= 1
                self._idle.notify_all()

    def close(self) -> None:
        """Wait for the requests in flight; the transport itself stays open."""
        with self._idle:
            self._idle.wait_for(lambda: not self._in_flight)
