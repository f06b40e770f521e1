"""Safe, strict loading of GOMIN checkpoints.

Accepted are state dicts saved by `torch.save` or as safetensors; wrapped in a dict under one of `WRAPPER_KEYS`; with
"module." prefixes from DataParallel; with the `melspec_layer.*` buffers that the original program leaves behind once it
has computed a mel. Pickled code is never run: files are read with `weights_only=True`.
"""

from __future__ import annotations

import json
import re
import statistics
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from gomin_client.errors import UsageError
from gomin_export.errors import CheckpointError
from gomin_export.networks.registry import ARCHITECTURES

if TYPE_CHECKING:
    from gomin_export.networks.base import MelInverter

    Network = TypeVar("Network", bound=MelInverter)

WRAPPER_KEYS = ("state_dict", "generator", "model", "ema")

_NO_CHECKPOINT = "is not a checkpoint, or a damaged one: expected a state dict saved by torch.save or safetensors"
_MELSPEC_PREFIX = "melspec_layer."
_DEFAULT_MEL_SETTINGS = {"sample_rate": 24000, "win_length": 1024}


class CheckpointReader:
    """The tensors of one checkpoint file, and the settings that their shapes show.

    Attributes:
        path: the file, for messages.
        tensors: name → float32 tensor on the CPU.
    """

    def __init__(self, path: Path, tensors: Mapping[str, Tensor], mel_buffers: Mapping[str, Tensor]) -> None:
        self.path = path
        self.tensors = dict(tensors)
        self._mel_buffers = dict(mel_buffers)

    def error(self, what: str) -> CheckpointError:
        """A `CheckpointError` that begins with the file's name."""
        return _error(self.path, what)

    def count(self, pattern: str) -> int:
        """How many indices there are of tensors whose names begin with pattern.format(index).

        Counted up to the highest index of any tensor, so that one that is missing does not make the network smaller.

        Raises:
            CheckpointError: there is none.
        """
        expression = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)"))
        found = [int(match[1]) for name in self.tensors if (match := expression.match(name))]
        if not found:
            raise self.error(f"tensor {pattern.format(0)}* is missing")
        return max(found) + 1

    def size(self, name: str, dim: int, rank: int) -> int:
        """The size of one dimension of a tensor that must have `rank` dimensions."""
        if name not in self.tensors:
            raise self.error(f"tensor {name} is missing")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != rank:
            raise self.error(f"tensor {name} has shape {shape}; expected {rank} dimensions")
        return shape[dim]

    def agreed(self, *sources: tuple[str, int, int]) -> int:
        """A size that several tensors show, by majority, so that one misshapen tensor does not decide it.

        Args:
            *sources: (tensor name, dimension, rank); with no majority the earliest wins.
        """
        readable = [
            (name, dim) for name, dim, rank in sources if name in self.tensors and self.tensors[name].ndim == rank
        ]
        if not readable:
            name, dim, rank = sources[0]
            return self.size(name, dim, rank)
        return statistics.mode(self.tensors[name].shape[dim] for name, dim in readable)

    def mel_settings(self) -> dict[str, int]:
        """Mel settings that the tensors show only where the original program left its mel buffers behind."""
        settings = dict(_DEFAULT_MEL_SETTINGS)
        window = self._mel_buffers.get("melspec_layer.spectrogram.window")
        if window is not None and window.ndim == 1:
            settings["win_length"] = len(window)
        return settings


def read_checkpoint(path: str | Path, kind: str, key: str | None = None) -> CheckpointReader:
    """Read the tensors of a checkpoint of one kind of network.

    Args:
        path: the file.
        kind: "gan" or "diffusion".
        key: which entry of a wrapped checkpoint to take; needed only where it has several.

    Raises:
        CheckpointError: the file cannot be read safely, or is not of this kind.
    """
    path = Path(path)
    state = _unwrap(path, _load_file(path), key)
    tensors: dict[str, Tensor] = {}
    mel_buffers: dict[str, Tensor] = {}
    for name, tensor in state.items():
        # DataParallel may have wrapped the whole model or, in the diffusion wrapper, the denoiser alone
        name = re.sub(r"^(model\.)?module\.", r"\1", name)
        if _MELSPEC_PREFIX in name:
            mel_buffers[name[name.index(_MELSPEC_PREFIX) :]] = tensor
            continue
        if name in tensors:
            raise _error(path, f'has tensor {name} both with and without the prefix "module."')
        if tensor.layout != torch.strided:
            raise _error(path, f"tensor {name} is sparse; expected a dense one")
        if not tensor.is_floating_point():
            raise _error(path, f"tensor {name} has type {tensor.dtype}; expected floating point")
        tensors[name] = tensor.detach().to(torch.float32)
        if not torch.isfinite(tensors[name]).all():
            raise _error(path, f"tensor {name} contains NaN or infinite values")
    _check_kind(path, tensors, kind)
    return CheckpointReader(path, tensors, mel_buffers)


def load_network(
    network_class: type[Network], path: str | Path, overrides: Mapping[str, Any] | None = None, key: str | None = None
) -> Network:
    """Build a network from a checkpoint: config from the tensors, weights strictly.

    Args:
        network_class: `GomiGAN` or `DiffusionWrapper`.
        path: the checkpoint.
        overrides: constructor arguments that win over what the tensors show.
        key: which entry of a wrapped checkpoint to take.

    Returns:
        The network in evaluation mode, float32, on the CPU.

    Raises:
        CheckpointError: see `read_checkpoint`; or a tensor is missing, unexpected or misshapen.
    """
    reader = read_checkpoint(path, network_class.kind, key)
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


def detect_kind(path: str | Path, key: str | None = None) -> str:
    """The kind of network that a checkpoint is of, "gan" or "diffusion".

    Raises:
        CheckpointError: the file cannot be read safely, or is of neither.
    """
    path = Path(path)
    tensors = _unwrap(path, _load_file(path), key)
    found = _kinds(tensors)
    if not found:
        raise _error(path, f"is not a GOMIN checkpoint; it has {_some_names(tensors)}")
    return found[0]


def _load_file(path: Path) -> Any:
    """The unpickled file, tensors and plain containers only; or the dict of a safetensors file."""
    try:
        if path.is_dir():
            raise CheckpointError(f"{path}: is a directory; expected a checkpoint file")
        if _is_safetensors(path):
            from safetensors.torch import load_file

            return load_file(path, device="cpu")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; what cannot be read is an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch, pickle, zipfile and safetensors each raise their own; all mean the same here
        raise CheckpointError(f"{path}: {_diagnose(path, error)}") from error


def _is_safetensors(path: Path) -> bool:
    """A safetensors file begins with the length of its JSON header, 8 bytes, then "{"."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and not head.startswith(b"PK")


def _diagnose(path: Path, error: Exception) -> str:
    """What is wrong with a file that could not be loaded, in words for its owner."""
    size = path.stat().st_size
    if size == 0:
        return "is empty; expected a checkpoint saved by torch.save or safetensors"
    message = str(error)
    refused = re.search(r"GLOBAL ([\w.]+)", message)
    if "weights_only" in message.lower() or "weights only" in message.lower():
        if refused:
            return (
                f"refused: it contains the Python object {refused[1]}, and loading that could run code; "
                "expected a state dict, as torch.save(model.state_dict(), …) writes it"
            )
        return _NO_CHECKPOINT
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04" and not zipfile.is_zipfile(path):
            return "is truncated or damaged: its archive cannot be read to the end; copy or download it again"
    if _is_safetensors(path):
        return f"is truncated or damaged: {message.splitlines()[0] if message else error}"
    return _NO_CHECKPOINT


def _unwrap(path: Path, raw: Any, key: str | None) -> dict[str, Tensor]:
    """The state dict inside a file's top-level object."""
    if not isinstance(raw, Mapping):
        raise _error(path, f"contains a {type(raw).__name__}; expected a state dict of named tensors")
    wrapped = [
        name
        for name, value in raw.items()
        if isinstance(value, Mapping) and (name in WRAPPER_KEYS or _kinds(value.keys()))
    ]
    if key is not None:
        if not isinstance(raw.get(key), Mapping):
            raise _error(path, f"has no state dict under {key!r}; it has {_some_names(raw)}")
        raw = raw[key]
    elif len(wrapped) > 1:
        raise _error(
            path, f"has several state dicts ({', '.join(wrapped)}): choose one with --key, say --key {wrapped[0]}"
        )
    elif wrapped:
        raw = raw[wrapped[0]]
    if not raw:
        raise _error(path, "contains no tensors")
    for name, value in raw.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise _error(path, f"entry {name!r} is a {type(value).__name__}; expected a state dict of named tensors")
    return dict(raw)


def _check_kind(path: Path, tensors: Mapping[str, Tensor], kind: str) -> None:
    """Refuse another network's checkpoint by name, before a long list of missing tensors would."""
    found = _kinds(tensors)
    if kind in found:
        return
    if found:
        raise _error(
            path,
            f"is a {found[0]} checkpoint (it has tensors {ARCHITECTURES[found[0]].signature}*), not a {kind} one; "
            f"use gomin-export {found[0]}",
        )
    raise _error(
        path,
        f"is not a GOMIN {kind} checkpoint: no tensor {ARCHITECTURES[kind].signature}*; it has {_some_names(tensors)}",
    )


def _kinds(names: Iterable[Any]) -> list[str]:
    """The kinds of network that have tensors of these names, whatever stands in front of the names."""
    names = [str(name) for name in names]
    return [
        kind
        for kind, architecture in ARCHITECTURES.items()
        if any(architecture.signature in name.replace("module.", "") for name in names)
    ]


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


def _error(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: {what}")


def _some_names(mapping: Mapping[Any, Any], limit: int = 3) -> str:
    names = [str(name) for name in mapping]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
