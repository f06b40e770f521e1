"""A custom transport in one file: every model answers with silence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client import MelConfig
from gomin_client.contract.model import ModelContract
from gomin_client.transports.base import LONGEST_S, ModelInfo, Parameters, Tensors, Transport
from gomin_client.transports.registry import register


class ToyTransport(Transport):
    def __init__(self, place: str) -> None:
        self.place = place

    @property
    def url(self) -> str:
        return f"toy:{self.place}"

    def models(self) -> list[str]:
        return ["gomin_gan"]

    def describe(self, model: str) -> ModelInfo:
        return ModelInfo(model, (1,), ModelContract("gan", MelConfig(), halo_frames=1).to_parameters(), 8)

    def infer(
        self,
        model: str,
        version: int,
        inputs: Tensors,
        timeout_s: float = LONGEST_S,
        parameters: Parameters | None = None,
    ) -> dict[str, NDArray[Any]]:
        items, _, frames = inputs["mel"].shape
        return {"audio": np.zeros((items, 1, 256 * frames), np.float32)}


register("toy", lambda addresses, _: ToyTransport(addresses[0].place))
