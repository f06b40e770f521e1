"""Weight normalisation (Salimans & Kingma 2016) that was left in a checkpoint: folded into plain weights.

A weight w is stored as a magnitude g and a direction v, w = g·v/‖v‖. `torch.nn.utils.weight_norm` stores them as
`NAME_g` and `NAME_v`, `torch.nn.utils.parametrizations.weight_norm` as `parametrizations.NAME.original0` and
`original1`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gomin_export.errors import CheckpointError

_PARAMETRIZED = re.compile(r"(?P<module>(?:.*\.)?)parametrizations\.(?P<name>[^.]+)\.(?P<part>.+)")
_HOOKED = re.compile(r"(?P<module>(?:.*\.)?)(?P<name>weight)_(?P<part>[guv]|orig)")
_PARTS = {"g": "g", "v": "v", "original0": "g", "original1": "v"}


def fold(path: Path, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Tensors with plain weights in place of weight-normalised ones, and the number of those.

    Args:
        path: the file, for messages.
        tensors: name → float32 tensor.

    Raises:
        CheckpointError: a part of a pair is missing or misshapen; or the weights have another parametrisation.
    """
    folded: dict[str, Tensor] = {}
    pairs: dict[str, dict[str, str]] = {}  # weight → part → tensor's name
    for name, tensor in tensors.items():
        match = _PARAMETRIZED.fullmatch(name) or _HOOKED.fullmatch(name)
        if match is None:
            folded[name] = tensor
            continue
        part = _PARTS.get(match["part"])
        weight = match["module"] + match["name"]
        if part is None or f"{weight}_orig" in tensors:
            raise CheckpointError(
                f"{path}: tensor {name} belongs to a parametrisation other than weight_norm, such as spectral_norm: "
                "remove it from the modules (remove_parametrizations, remove_spectral_norm) before you save them"
            )
        if part in pairs.setdefault(weight, {}):
            raise CheckpointError(f"{path}: has the weight norm of {weight} twice: {pairs[weight][part]} and {name}")
        pairs[weight][part] = name
    for weight, parts in pairs.items():
        if len(parts) == 1:
            (name,) = parts.values()
            raise CheckpointError(
                f"{path}: tensor {name} is half of a weight norm; its {'direction' if 'g' in parts else 'magnitude'} "
                "is missing"
            )
        if weight in folded:
            raise CheckpointError(f"{path}: has {weight} twice: as such, and as {parts['g']} and {parts['v']}")
        folded[weight] = _weight(path, parts, tensors[parts["g"]], tensors[parts["v"]])
    return folded, len(pairs)


def _weight(path: Path, names: Mapping[str, str], magnitude: Tensor, direction: Tensor) -> Tensor:
    """g·v/‖v‖, with a norm over all dimensions in which g has size 1."""
    shape, full = tuple(magnitude.shape), tuple(direction.shape)
    matches = len(shape) == len(full) and all(size in (1, whole) for size, whole in zip(shape, full, strict=True))
    if not matches and magnitude.numel() != 1:
        raise CheckpointError(
            f"{path}: tensor {names['g']} has shape {shape}; it does not fit {names['v']} with shape {full}"
        )
    over = [dim for dim in range(direction.ndim) if not matches or shape[dim] == 1]
    exact = direction.double()
    norm = torch.linalg.vector_norm(exact, dim=over, keepdim=True) if over else exact.abs()
    return (magnitude.double() * exact / norm).float()
