"""The state dict of a network in what a checkpoint file contains: wrappers, prefixes and other modules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from gomin_export.errors import CheckpointError

# Names that wrappers put into the names of tensors, at any depth: DataParallel and DDP, torch.compile, FSDP, activation
# checkpointing, Lightning Fabric.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
STATE_DICT_KEYS = ("state_dict", "generator", "model", "ema")  # looked into by name if no tensor is recognised

_WRAPPER = re.compile(rf"(?:^|(?<=\.))(?:{'|'.join(WRAPPERS)})\.")
_MELSPEC = "melspec_layer."
_LONGEST_NAME = 100  # characters of a name in a message
_DEEPEST = 5  # levels of nested containers


@dataclass
class StateDict:
    """Tensors under the network's own names.

    Attributes:
        tensors: name → tensor, as it was saved.
        mel_buffers: the buffers that the original program leaves behind once it has computed a mel.
        notes: what was removed from names, and what was left out; a sentence each.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    mel_buffers: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Candidate:
    """A network's tensors in a checkpoint.

    Attributes:
        kind: the kind of network.
        keys: the keys of the containers around them.
        prefix: the part of its names in front of the network's own, without wrappers; "" or with a dot at the end.
        entries: the container that holds the tensors.
    """

    kind: str
    keys: tuple[str, ...]
    prefix: str
    entries: Mapping[Any, Any]

    @property
    def label(self) -> str:
        """What --key chooses it by."""
        return ".".join([*self.keys, *([self.prefix.rstrip(".")] if self.prefix else [])])


def find_candidates(contents: Mapping[Any, Any] | Sequence[Any], signatures: Mapping[str, str]) -> list[Candidate]:
    """All networks in a file's top-level object.

    Args:
        contents: containers and tensors.
        signatures: kind → what the names of some tensors begin with in networks of that kind.
    """
    found = []
    for keys, entries in _containers(contents, set()):
        names = [_unwrapped(name) for name, value in entries.items() if isinstance(name, str) and is_tensor(value)]
        for kind, signature in signatures.items():
            outer, anchor = _split(signature)
            prefixes = {name[: match.start()] for name in names for match in re.finditer(_at_start(anchor), name)}
            found += [
                Candidate(kind, keys, own, entries)
                for own in dict.fromkeys(_without_suffix(prefix, outer) for prefix in sorted(prefixes))
            ]
    return found


def choose(path: Path, contents: Any, candidates: Sequence[Candidate], key: str | None) -> Candidate:
    """The network that a key chooses, or the only one.

    Args:
        path: the file, for messages.
        contents: its top-level object.
        candidates: the networks in it that are considered.
        key: see `Candidate.label`; the keys of its containers or its prefix alone are accepted too.

    Raises:
        CheckpointError: none or several.
    """
    chosen = list(candidates)
    if key is not None:
        wanted = key.removesuffix(".")
        chosen = [one for one in candidates if one.label == wanted]
        chosen = chosen or [
            one for one in candidates if wanted in (".".join(one.keys), *one.keys[:1], one.prefix.removesuffix("."))
        ]
        if not chosen:
            listed = ", ".join(one.label for one in candidates if one.label) or some_names(contents)
            raise CheckpointError(f"{path}: has no state dict under {key!r}; it has {listed}")
    if len(chosen) > 1:
        labels = [one.label or '""' for one in chosen]
        example = next((label for label in labels if label != '""'), labels[0])
        raise CheckpointError(
            f"{path}: has several state dicts ({', '.join(labels)}): choose one with --key, say --key {example}"
        )
    return chosen[0]


def network_tensors(path: Path, chosen: Candidate, candidates: Sequence[Candidate], signature: str) -> StateDict:
    """The tensors of a network, under the network's own names.

    Args:
        path: the file, for messages.
        chosen: the network.
        candidates: all networks in the file; those beside it are left out.
        signature: of its kind; see `find_candidates`.

    Raises:
        CheckpointError: a tensor is there twice.
    """
    outer, anchor = _split(signature)
    state = StateDict()
    if chosen.keys:
        state.notes.append(f"took the state dict {'.'.join(chosen.keys)}")
    # the prefix of the bare inner module lacks what the network puts in front of its names
    bare = not any(
        _unwrapped(name).startswith(chosen.prefix + outer + anchor) for name in chosen.entries if isinstance(name, str)
    )
    beside = tuple(
        one.prefix
        for one in candidates
        if one.entries is chosen.entries and one.kind == chosen.kind and not chosen.prefix.startswith(one.prefix)
    )
    wrappers: dict[str, None] = {}
    others: list[str] = []
    for raw, value in chosen.entries.items():
        name = _unwrapped(str(raw))
        if not is_tensor(value) or (value.ndim == 0 and not value.is_floating_point()):
            others.append(str(raw))  # counters and settings beside the tensors
            continue
        wrappers.update(dict.fromkeys(_WRAPPER.findall(str(raw))))
        if _MELSPEC in name:
            state.mel_buffers[name[name.index(_MELSPEC) :]] = value
            continue
        if not name.startswith(chosen.prefix) or name.startswith(beside):
            others.append(str(raw))
            continue
        name = (outer if bare else "") + name[len(chosen.prefix) :]
        if name in state.tensors:
            between = " and ".join(f'"{wrapper}"' for wrapper in wrappers)
            raise CheckpointError(f"{path}: has tensor {name} both with and without the prefix {between}")
        state.tensors[name] = value
    removed = [*wrappers, *([chosen.prefix] if chosen.prefix else [])]
    if removed:
        state.notes.append(f"removed {' and '.join(repr(prefix) for prefix in removed)} from the names of its tensors")
    if bare and outer:
        state.notes.append(f"added {outer!r} to the names of its tensors")
    if others:
        state.notes.append(f"left out {some_names(others)}")
    return state


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor; parameters are."""
    return isinstance(value, Tensor)


def some_names(names: Any, limit: int = 3) -> str:
    """The first names of a container, and the number of the others."""
    listed = [str(name)[:_LONGEST_NAME] for name in names]
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")


def _containers(
    contents: Mapping[Any, Any] | Sequence[Any], expanded: set[int], keys: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """All mappings within a value, itself first, with the keys that lead to them.

    A container that is in several places, or in itself, is expanded only once.
    """
    if isinstance(contents, Mapping):
        yield keys, contents
    if id(contents) in expanded or len(keys) == _DEEPEST:
        return
    expanded.add(id(contents))
    items = contents.items() if isinstance(contents, Mapping) else enumerate(contents)
    for key, value in items:
        if isinstance(value, (Mapping, list, tuple)):
            yield from _containers(value, expanded, (*keys, str(key)))


def _split(signature: str) -> tuple[str, str]:
    """A signature in two: the names of outer modules, which are sometimes left out, and that of the inner one.

    "model.residual_layers." → "model.", "residual_layers."; "conv_pre." → "", "conv_pre.".
    """
    outer, _, anchor = signature.removesuffix(".").rpartition(".")
    return (f"{outer}." if outer else ""), f"{anchor}."


def _at_start(anchor: str) -> str:
    return rf"(?:^|(?<=\.)){re.escape(anchor)}"


def _without_suffix(prefix: str, outer: str) -> str:
    """The prefix in front of the network. The outer module's own name is part of the network."""
    if outer and (prefix == outer or prefix.endswith("." + outer)):
        return prefix.removesuffix(outer)
    return prefix


def _unwrapped(name: str) -> str:
    return _WRAPPER.sub("", name)
