"""The client of a GOMIN vocoder on Triton, in-process or on a server; it does not need torch.

from gomin_client import Vocoder

with Vocoder("grpc://localhost:8001") as vocoder:
    wave = vocoder.synthesize(mel)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gomin_client.errors import (
    AccessError,
    ContractError,
    DeadlineError,
    FileError,
    GominError,
    InferenceError,
    ModelNotReadyError,
    ServerError,
    SuspiciousAudioError,
    SuspiciousMelError,
    UnknownModelError,
    UsageError,
)

if TYPE_CHECKING:
    from gomin_client.async_vocoder import AsyncVocoder
    from gomin_client.mel.features import MelConfig
    from gomin_client.mel.scales import to_gomin
    from gomin_client.sampling.settings import SamplerSettings
    from gomin_client.transports.connection import Connection
    from gomin_client.transports.mock import MockModel, MockTransport
    from gomin_client.vocoder import Vocoder

__all__ = [
    "DEFAULT_URL",
    "AccessError",
    "AsyncVocoder",
    "ChainStep",
    "Connection",
    "ContractError",
    "DeadlineError",
    "FileError",
    "GominError",
    "InferenceError",
    "MelConfig",
    "MockModel",
    "MockTransport",
    "ModelNotReadyError",
    "SamplerSettings",
    "ServerError",
    "SuspiciousAudioError",
    "SuspiciousMelError",
    "UnknownModelError",
    "UsageError",
    "Vocoder",
    "to_gomin",
]

DEFAULT_URL = "grpc://localhost:8001"

# imported when they are first used: the command line starts without numpy
_LAZY = {
    "AsyncVocoder": "async_vocoder",
    "ChainStep": "inference.steps",
    "Connection": "transports.connection",
    "MelConfig": "mel.features",
    "MockModel": "transports.mock",
    "MockTransport": "transports.mock",
    "SamplerSettings": "sampling.settings",
    "Vocoder": "vocoder",
    "to_gomin": "mel.scales",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"gomin_client.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
