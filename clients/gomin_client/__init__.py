"""The client of a GOMIN vocoder on Triton: mel extraction, sampling, transports, files. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gomin_client.transports.connection import Connection
    from gomin_client.vocoder import Vocoder

__all__ = ["DEFAULT_URL", "Connection", "Vocoder"]

DEFAULT_URL = "grpc://localhost:8001"


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: the command line starts without numpy."""
    if name == "Vocoder":
        from gomin_client.vocoder import Vocoder

        return Vocoder
    if name == "Connection":
        from gomin_client.transports.connection import Connection

        return Connection
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
