"""What a server or repository offers, as JSON: its models with tensors, settings, limits and an example request.

docs/client.md documents the format. Fields may be added; `SCHEMA` is raised if one changes its meaning or is removed.
"""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import quote

from gomin_client.contract import model as contract
from gomin_client.contract.choices import SAMPLER_PARAMETERS
from gomin_client.contract.model import ModelContract
from gomin_client.contract.signatures import SIGNATURES, Signature, Tensor
from gomin_client.errors import ContractError
from gomin_client.sampling import registry
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.transports.base import ModelInfo, Transport

SCHEMA = 1

_EXAMPLE_FRAMES = 1


def describe(transport: Transport) -> dict[str, Any]:
    """Everything that a caller must know to send requests.

    Raises:
        GominError: see `Transport.models` and `Transport.describe`.
    """
    names = transport.models()
    server = transport.server()
    return {
        "schema": SCHEMA,
        "url": transport.url,
        "server": None if server is None else {"name": server.name, "version": server.version},
        "models": [describe_model(transport.describe(name)) for name in names],
    }


def describe_model(info: ModelInfo) -> dict[str, Any]:
    """One model. A model that is not GOMIN's, or whose config is damaged, has a "problem" and no other settings."""
    try:
        described = ModelContract.from_parameters(info.name, info.parameters)
        sampling = _sampling(info, described)
    except ContractError as error:
        return {
            "name": info.name,
            "versions": [{"version": version} for version in info.versions],
            "problem": str(error),
        }
    signature = SIGNATURES[described.kind]
    mel = described.mel
    return {
        "name": info.name,
        "kind": described.kind,
        "summary": signature.summary,
        "versions": [_version(described, version) for version in info.versions],
        "inputs": [_tensor(tensor, described) for tensor in signature.inputs],
        "outputs": [_tensor(tensor, described) for tensor in signature.outputs],
        "sample_rate": mel.sample_rate,
        "hop_length": mel.hop_length,
        "mel": {
            "n_mels": mel.n_mels,
            "n_fft": mel.n_fft,
            "win_length": mel.win_length,
            "f_min": mel.f_min,
            "f_max": mel.f_max,
        },
        "halo_frames": described.halo_frames,
        "reach_frames": _reach(described, sampling),
        "num_diffusion_steps": described.num_diffusion_steps,
        "sampling": sampling,
        "limits": {"max_batch_size": info.max_batch_size, "max_frames": described.max_frames},
        "example": _example(info.name, signature, described),
        "problem": None,
    }


def _version(described: ModelContract, version: int) -> dict[str, Any]:
    made = described.provenance.get(version)
    return {
        "version": version,
        "checkpoint_sha256": made and (made.checkpoint_sha256 or None),
        "source": made and (made.source or None),
        "precision": made and made.precision,
        "parity": made and made.parity,
        "operators": made and (made.operators or None),
        "operators_sha256": made and (made.operators_sha256 or None),
    }


def _tensor(tensor: Tensor, described: ModelContract) -> dict[str, Any]:
    unit, meaning = tensor.words(described)
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": tensor.shape(described),
        "axes": ["batch", *tensor.axes],
        "unit": unit,
        "meaning": meaning,
        "optional": tensor.is_optional,
    }


def _sampling(info: ModelInfo, described: ModelContract) -> dict[str, Any] | None:
    """The chains that requests choose from; None for a model that runs none. An ensemble has no default of its own.

    Raises:
        ContractError: the default chain in the config is not valid.
    """
    if described.kind not in (*contract.CHAIN_KINDS, contract.RECONSTRUCT_DIFFUSION):
        return None
    default = None
    if described.kind in contract.CHAIN_KINDS and described.num_diffusion_steps is not None:
        try:
            chain = SamplerSettings.from_config(info.parameters).resolved(described.num_diffusion_steps)
        except ValueError as error:
            raise ContractError(f"model {info.name}: {error}") from error
        default = {name: getattr(chain, name) for name in SAMPLER_PARAMETERS}
    return {
        "default": default,
        "samplers": [{"name": sampler.name, "summary": sampler.summary} for sampler in registry.SAMPLERS.values()],
        "schedules": list(registry.SCHEDULES),
    }


def _reach(described: ModelContract, sampling: dict[str, Any] | None) -> int | None:
    """Frames that a window needs to either side, see docs/http.md; None for an ensemble whose chain is not known."""
    if sampling is not None and sampling["default"] is None:
        return None
    steps = 1 if sampling is None else sampling["default"]["steps"]
    takes_audio = described.kind in (contract.FRONT_END, *contract.ENSEMBLE_KINDS)
    transform = math.ceil(described.mel.n_fft / 2 / described.mel.hop_length) if takes_audio else 0
    return int(described.halo_frames * steps + transform)


def _example(model: str, signature: Signature, described: ModelContract) -> dict[str, Any] | None:
    """A request over HTTP; None for a model that sends several answers, which HTTP cannot."""
    if described.kind == contract.DIFFUSION_STREAM:
        return None
    return {
        "method": "POST",
        "path": f"/v2/models/{quote(model, safe='')}/infer",
        "headers": {"Content-Type": "application/json"},
        "body": {"inputs": _example_inputs(signature, described)},
    }


def _example_inputs(signature: Signature, described: ModelContract) -> list[dict[str, Any]]:
    """The inputs of the shortest request, in the form of the KServe v2 protocol."""
    inputs = []
    for tensor in signature.inputs:
        if not tensor.is_optional:
            shape = [1, *(size or 0 for size in tensor.sizes(described, _EXAMPLE_FRAMES))]
            data = [tensor.example] * math.prod(shape)
            inputs.append({"name": tensor.name, "datatype": tensor.datatype, "shape": shape, "data": data})
    return inputs
