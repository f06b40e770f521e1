"""From a checkpoint file to a network: config from the tensors, weights strictly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import torch
from torch import Tensor

from gomin_client.errors import UsageError
from gomin_export.checkpoints import state_dicts, weight_norm
from gomin_export.checkpoints.files import load_file
from gomin_export.checkpoints.reader import CheckpointReader
from gomin_export.checkpoints.state_dicts import Candidate, some_names
from gomin_export.errors import CheckpointError
from gomin_export.networks.registry import ARCHITECTURES

_MOST_SHARING = 4  # times that the bytes in the file may be used by tensors
_SHARED_FREELY = 1 << 20


class LoadableNetwork(Protocol):
    """What `load_network` needs of a network class, a torch module."""

    kind: ClassVar[str]
    config_class: ClassVar[type[Any]]  # see `networks.base.NetworkConfig`

    def __init__(self, **config: Any) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """See torch."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> object:
        """See torch."""
        ...

    def eval(self) -> Self:
        """See torch."""
        ...

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """See torch."""
        ...


Network = TypeVar("Network", bound=LoadableNetwork)


def load_network(
    network_class: type[Network],
    path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    key: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Network:
    """Build a network from a checkpoint: config from the tensors, weights strictly.

    Args:
        network_class: `GomiGAN` or `DiffusionWrapper`.
        path: the checkpoint.
        overrides: constructor arguments that win over the config that the tensors show.
        key: the state dict to use from a checkpoint with several.
        say: called with a sentence about each change and omission.

    Returns:
        The network in evaluation mode, float32, on the CPU.

    Raises:
        CheckpointError: see `read_checkpoint`; or a tensor is missing, unexpected or misshapen.
    """
    reader = read_checkpoint(path, network_class.kind, key)
    for note in reader.notes:
        say(f"{path}: {note}")
    try:
        config = network_class.config_class.from_tensors(reader, overrides or {})
        with torch.device("meta"):
            network = network_class(**config.__dict__)
    except (TypeError, ValueError, RuntimeError) as error:
        raise reader.error(f"its config is not usable: {error}") from error
    _check_tensors(reader, {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
    network = network_class(**config.__dict__)
    network.load_state_dict(reader.tensors, strict=True)
    return network.eval().requires_grad_(False)


def read_checkpoint(path: str | Path, kind: str, key: str | None = None) -> CheckpointReader:
    """Read the tensors of a checkpoint of one kind of network.

    Args:
        path: the file.
        kind: "gan" or "diffusion".
        key: the state dict to use from a checkpoint with several.

    Raises:
        CheckpointError: the file cannot be read safely, or is not of this kind.
    """
    path = Path(path)
    chosen, candidates = _choose(path, kind, key)
    state = state_dicts.network_tensors(path, chosen, candidates, ARCHITECTURES[kind].signature)
    for name, tensor in [*state.tensors.items(), *state.mel_buffers.items()]:
        _check_data(path, name, tensor)
    _check_sharing(path, list(state.tensors.values()))
    tensors, weights = weight_norm.fold(
        path, {name: _to_float32(path, name, tensor) for name, tensor in state.tensors.items()}
    )
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: tensor {name} contains NaN or infinite values")
    if weights:
        state.notes.append(f"folded weight norm into {weights} weights")
    return CheckpointReader(path, tensors, state.mel_buffers, state.notes)


def detect_kind(path: str | Path, key: str | None = None) -> str:
    """The kind of network that a checkpoint is of, "gan" or "diffusion".

    Raises:
        CheckpointError: the file cannot be read safely, or is of neither.
    """
    return _choose(Path(path), None, key)[0].kind


def read_config_file(path: str | Path, config_class: type[Any]) -> dict[str, Any]:
    """Constructor arguments from a JSON file, as `load_network` takes them.

    Raises:
        UsageError: not readable as JSON, or a name that the config does not have.
    """
    path = Path(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a JSON config: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected a JSON object of config values, found {type(values).__name__}")
    known = config_class.__dataclass_fields__
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UsageError(f"{path}: unknown config value {unknown[0]!r}; known are {', '.join(known)}")
    return values


def _choose(path: Path, kind: str | None, key: str | None) -> tuple[Candidate, list[Candidate]]:
    """The chosen network in a file, of the given kind if there is one; and all networks of that kind in the file."""
    contents = load_file(path)
    if not isinstance(contents, (Mapping, list, tuple)):
        raise CheckpointError(
            f"{path}: contains a {type(contents).__name__}; expected a state dict of named tensors, as "
            "torch.save(model.state_dict(), …) writes it"
        )
    signatures = {name: architecture.signature for name, architecture in ARCHITECTURES.items()}
    candidates = state_dicts.find_candidates(contents, signatures)
    of_kind = [one for one in candidates if kind in (None, one.kind)]
    if of_kind:
        return state_dicts.choose(path, contents, of_kind, key), of_kind
    if candidates:  # a clearer message than a long list of missing tensors
        found = state_dicts.choose(path, contents, candidates, key).kind
        raise CheckpointError(
            f"{path}: is a {found} checkpoint (it has tensors {ARCHITECTURES[found].signature}*), not a {kind} one; "
            f"use gomin-export {found}"
        )
    for name in contents if isinstance(contents, Mapping) else ():
        if any(signature in str(name) for signature in signatures.values()):
            raise CheckpointError(
                f"{path}: entry {name} is not a tensor, but an array, a list or another object; expected tensors, as "
                "torch.save(model.state_dict(), …) writes them"
            )
    names = _names_of_strangers(contents, key)
    if not names:
        raise CheckpointError(f"{path}: contains no tensors")
    if kind is None:
        raise CheckpointError(f"{path}: is not a GOMIN checkpoint; it has {names}")
    raise CheckpointError(
        f"{path}: is not a GOMIN {kind} checkpoint: no tensor {ARCHITECTURES[kind].signature}*; it has {names}"
    )


def _names_of_strangers(contents: Any, key: str | None) -> str:
    """Some names of what a file without a network of ours contains."""
    if isinstance(contents, Mapping):
        for wrapper in (key, *state_dicts.STATE_DICT_KEYS):
            if isinstance(contents.get(wrapper), Mapping):
                return some_names(contents[wrapper])
        return some_names(contents)
    return some_names(type(value).__name__ for value in contents)


def _check_data(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse a tensor whose values are not all in the file, before anything of its size is allocated."""
    if tensor.is_meta:
        raise CheckpointError(
            f"{path}: tensor {name} has no values: it was saved on the meta device, as under init_empty_weights; "
            "load the weights before you save the model"
        )
    if tensor.layout != torch.strided:
        raise CheckpointError(f"{path}: tensor {name} is sparse; expected a dense one")
    claimed, stored = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if claimed > stored:
        raise CheckpointError(
            f"{path}: tensor {name} has shape {tuple(tensor.shape)}, {claimed} bytes, but the file holds {stored} "
            f"bytes of it (its strides are {tensor.stride()}); save tensor.contiguous() instead"
        )


def _check_sharing(path: Path, tensors: Sequence[Tensor]) -> None:
    """Refuse tensors that are mostly the same values: the network would take far more memory than the file.

    A few tied weights are usual.
    """
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    stored = sum(storages.values())
    if claimed > _MOST_SHARING * stored + _SHARED_FREELY:
        raise CheckpointError(
            f"{path}: its tensors are views of the same values, {claimed} bytes of {stored}; expected each tensor's own"
        )


def _to_float32(path: Path, name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        raise CheckpointError(f"{path}: tensor {name} has type {tensor.dtype}; expected floating point")
    try:
        return tensor.detach().to(torch.float32)
    except (RuntimeError, NotImplementedError) as error:  # formats that only some devices convert
        raise CheckpointError(f"{path}: tensor {name} has type {tensor.dtype}, which cannot be converted") from error


def _check_tensors(reader: CheckpointReader, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Names and shapes must be exactly those of the network; the message names the first that is not."""
    problems = []
    for name, shape in expected.items():
        if name not in reader.tensors:
            problems.append(f"tensor {name} is missing (expected shape {shape})")
        elif tuple(reader.tensors[name].shape) != shape:
            problems.append(f"tensor {name} has shape {tuple(reader.tensors[name].shape)}; expected {shape}")
    problems += [f"unexpected tensor {name}" for name in reader.tensors if name not in expected]
    if problems:
        more = f" (and {len(problems) - 1} more like this)" if len(problems) > 1 else ""
        raise reader.error(problems[0] + more)
