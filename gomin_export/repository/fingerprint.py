"""The recipe of an export: everything that determines its files; and the search for an export by the same recipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import gomin_client.sampling
import gomin_export
from gomin_client.contract.repository import versions
from gomin_client.native.library import OperatorLibrary
from gomin_export.errors import RepositoryError
from gomin_export.networks.base import MelInverter
from gomin_export.networks.served import ServedModel
from gomin_export.onnx.export import OPSET
from gomin_export.onnx.forms import GraphOptions
from gomin_export.parity.record import file_digests, read_report, read_vectors

_PACKAGES = ("gomin-triton", "torch", "onnx", "onnxscript", "onnx-ir", "numpy")

Recipe = dict[str, Any]


def make_recipe(
    checkpoint_sha256: str,
    key: str | None,
    config: Mapping[str, Any],
    graph: GraphOptions,
    chain: Mapping[str, Any] | None = None,
    library: OperatorLibrary | None = None,
) -> Recipe:
    """Everything that determines an exported model and its parity cases, for parity.json.

    Args:
        checkpoint_sha256: SHA-256 of the checkpoint file.
        key: entry of a checkpoint with several state dicts.
        config: the network's constructor arguments.
        graph: choices that change the ONNX graph.
        chain: request parameters of the sampling chain in the parity cases; None without one.
        library: the library of the graph's operators; None if it has only ONNX's.
    """
    recipe: Recipe = {
        "checkpoint_sha256": checkpoint_sha256,
        "checkpoint_key": key,
        "network": dict(config),
        "precision": graph.precision,
        "lowering": graph.lowering,
        "target": graph.target,
        "chain": None if chain is None else dict(chain),
        "opset": OPSET,
        "packages": {name: _version(name) for name in _PACKAGES},
        "exporter_sha256": _own_digest(),
    }
    if library is not None:
        recipe["operators"] = {"set": library.operators, "library_sha256": library.sha256}
    normalized: Recipe = json.loads(json.dumps(recipe))  # tuples become lists, as in the file
    return normalized


def make_shared_recipe(model: ServedModel, network: MelInverter) -> Recipe:
    """The same for a model that is made from the mel settings alone: the SHA-256 of its ONNX file.

    So an upgrade of a package, or of this one, makes a new version only if that file changes.
    """
    from gomin_export.onnx.front_end import serialized

    return {"onnx_sha256": hashlib.sha256(serialized(model.described(network))).hexdigest()}


def find_export(repository: Path, models: Sequence[str], recipe: Recipe, wanted: int | None = None) -> int | None:
    """The version of an export by this recipe whose files and records are unchanged; None if there is none.

    Args:
        repository: the model repository.
        models: names of all models of the export.
        recipe: see `make_recipe`.
        wanted: the only version to consider; None for the newest that fits.
    """
    common = set.intersection(*(set(versions(repository / model)) for model in models))
    for version in sorted(common if wanted is None else common & {wanted}, reverse=True):
        if all(_made_by(repository / model / str(version), recipe) for model in models):
            return version
    return None


def _made_by(files: Path, recipe: Recipe) -> bool:
    try:
        facts = read_report(files).facts
        return bool(facts["recipe"] == recipe and facts["files"] == file_digests(files) and read_vectors(files))
    except RepositoryError:
        return False


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def sampling_modules() -> list[Path]:
    """The files of the package `sampling`, which an export copies beside the diffusion model's model.py."""
    return sorted(Path(gomin_client.sampling.__path__[0]).glob("*.py"))


def _own_digest() -> str:
    """SHA-256 of our own code, which changes between releases without a new version number."""
    digest = hashlib.sha256()
    for path in [*sorted(Path(gomin_export.__path__[0]).rglob("*.py")), *sampling_modules()]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
