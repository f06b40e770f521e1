"""A transport without a server: models are Python functions. For tests of what is built on this library.

model = MockModel.vocoder(lambda mel: np.zeros((len(mel), mel.shape[-1] * 256), np.float32))
transport = MockTransport({"gomin_gan": model})
with Vocoder(transport) as vocoder:
vocoder.synthesize(mel)
assert len(transport.calls) == 1
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.contract.model import AUDIO, GAN, MEL, ModelContract
from gomin_client.mel.features import MelBatch, MelConfig, Wave
from gomin_client.transports.base import LONGEST_S, ModelInfo, Parameters, Tensors, Transport, unknown_model


@dataclass(frozen=True)
class Call:
    """One call of a model; see `Transport.infer`."""

    model: str
    version: int
    inputs: Tensors
    timeout_s: float
    parameters: Parameters


@dataclass(frozen=True)
class MockModel:
    """A model that is a function.

    Attributes:
        answer: takes a call, returns name → tensor; it may raise.
        parameters: config parameters; see `ModelContract.to_parameters`.
        versions: versions that can be called.
        max_batch_size: see `ModelInfo`.
    """

    answer: Callable[[Call], Mapping[str, NDArray[Any]]]
    parameters: Mapping[str, str]
    versions: tuple[int, ...] = (1,)
    max_batch_size: int = 16

    @classmethod
    def vocoder(
        cls, synthesize: Callable[[MelBatch], Wave], mel: MelConfig | None = None, *, halo_frames: int = 32
    ) -> MockModel:
        """A model that makes audio from mels, as a GAN does.

        Args:
            synthesize: (batch, n_mels, frames) → (batch, hop_length · frames).
            mel: settings of the mels; GOMIN's own by default.
            halo_frames: number of frames to either side that a sample depends on.
        """
        contract = ModelContract(GAN, mel or MelConfig(), halo_frames)
        return cls(lambda call: {AUDIO: synthesize(call.inputs[MEL])[:, np.newaxis]}, contract.to_parameters())


@dataclass
class MockTransport(Transport):
    """A repository of `MockModel`s.

    Attributes:
        repository: name → model.
        url: see `Transport.url`.
        servers: see `Transport.servers`.
        calls: all calls of `infer` so far, failed ones too.
        described: number of calls of `describe` so far.
        errors: raised by the next calls of `models`, `describe` and `infer`, one by each.
        closed: whether `close` has been called.
    """

    repository: Mapping[str, MockModel]
    url: str = "mock:"
    servers: int = 1
    calls: list[Call] = field(default_factory=list)
    described: int = 0
    errors: list[Exception] = field(default_factory=list)
    closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def fail(self, *errors: Exception) -> None:
        """Raise these errors from the next calls, one from each."""
        with self._lock:
            self.errors.extend(errors)

    def models(self) -> list[str]:
        """See `Transport.models`."""
        self._fail()
        return sorted(self.repository)

    def describe(self, model: str) -> ModelInfo:
        """See `Transport.describe`."""
        self.described += 1
        self._fail()
        mock = self._model(model)
        return ModelInfo(model, mock.versions, mock.parameters, mock.max_batch_size)

    def infer(
        self,
        model: str,
        version: int,
        inputs: Tensors,
        timeout_s: float = LONGEST_S,
        parameters: Parameters | None = None,
    ) -> dict[str, NDArray[Any]]:
        """See `Transport.infer`."""
        call = Call(model, version, inputs, timeout_s, parameters or {})
        with self._lock:
            self.calls.append(call)
        self._fail()
        return dict(self._model(model).answer(call))

    def close(self) -> None:
        """See `Transport.close`."""
        self.closed = True

    def _model(self, name: str) -> MockModel:
        if name not in self.repository:
            raise unknown_model(self.url, name, sorted(self.repository))
        return self.repository[name]

    def _fail(self) -> None:
        with self._lock:
            error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
