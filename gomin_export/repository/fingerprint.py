"""What decides the bytes of an export, and finding an export that was made by the same recipe."""

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
from gomin_export.errors import RepositoryError
from gomin_export.onnx.export import OPSET, Graph
from gomin_export.parity.record import file_digests, read_report, read_vectors

_PACKAGES = ("gomin-triton", "torch", "onnx", "onnxscript", "onnx-ir", "numpy")

Recipe = dict[str, Any]


def make_recipe(
    checkpoint_sha256: str,
    key: str | None,
    config: Mapping[str, Any],
    graph: Graph,
    chain: Mapping[str, Any] | None = None,
) -> Recipe:
    """All that an exported model, and what the gate proves of it, depends on, for parity.json.

    Args:
        checkpoint_sha256: of the checkpoint file.
        key: which entry of a wrapped checkpoint was taken.
        config: the network's constructor arguments.
        graph: how the graph was made.
        chain: request parameters of the sampling chain that the gate runs; None for a GAN.
    """
    recipe = {
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
    normalized: Recipe = json.loads(json.dumps(recipe))  # tuples become lists, as in the file
    return normalized


def find_export(repository: Path, models: Sequence[str], recipe: Recipe, wanted: int | None = None) -> int | None:
    """The version that all models have by this recipe, with files and records unchanged since; None if there is none.

    Args:
        repository: the model repository.
        models: what one export makes.
        recipe: see `make_recipe`.
        wanted: the version to look at; the newest that fits, if left out.
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


def _own_digest() -> str:
    """SHA-256 of our own code, which may change without a new version number while it is being developed."""
    digest = hashlib.sha256()
    for path in [*sorted(Path(gomin_export.__path__[0]).rglob("*.py")), *sampling_modules()]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def sampling_modules() -> list[Path]:
    """The files of the package `sampling`, which an export copies beside the diffusion model's model.py."""
    return sorted(Path(gomin_client.sampling.__path__[0]).glob("*.py"))
