"""Tensors of the models that ONNX Runtime runs, by the kind of their contract."""

from __future__ import annotations

from gomin_client.contract import model as contract
from gomin_client.contract.model import ModelContract


def inputs(described: ModelContract, frames: int | None = None) -> dict[str, list[int | None]]:
    """Name → sizes of an input, without the batch axis.

    Args:
        described: the model's contract, of kind "gan" or "denoiser".
        frames: mel frames of a request; None leaves the axes that depend on it None.
    """
    sizes: dict[str, list[int | None]] = {contract.MEL: [described.mel.n_mels, frames]}
    if described.kind == contract.DENOISER:
        sizes[contract.SIGNAL] = [1, None if frames is None else described.mel.hop_length * frames]
        sizes[contract.TIMESTEP] = [1]
    return sizes


def of(described: ModelContract) -> dict[str, list[int | None]]:
    """Name → sizes of every input and output, without the batch axis; None for a dynamic axis."""
    return {**inputs(described), contract.OUTPUTS[described.kind]: [1, None]}
