"""Placing complete models into a Triton model repository.

Models are staged in a directory beside the repository, on the same file system, and renamed in, so that a server never
sees half a model. Every model of one export gets the same version number.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from gomin_client.contract import SHA256_PARAMETER, ModelContract
from gomin_client.errors import GominError
from gomin_client.model_repository import CONFIG, read_config, versions
from gomin_export.errors import RepositoryError


@dataclass(frozen=True)
class StagedModel:
    """One model, complete but for its version number.

    Attributes:
        name: the model's name and its template's.
        contract: what its config.pbtxt tells clients.
        files: directory that becomes the version directory.
    """

    name: str
    contract: ModelContract
    files: Path


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """A temporary directory beside the repository, removed at the end whatever happens.

    Raises:
        RepositoryError: the repository or the staging directory cannot be made.
    """
    repository = repository.resolve()
    try:
        if repository.exists() and not repository.is_dir():
            raise RepositoryError(f"{repository}: is a file, not a directory")
        repository.parent.mkdir(parents=True, exist_ok=True)
        if repository.exists() and not os.access(repository, os.W_OK):
            raise PermissionError(13, "Permission denied")
        if repository.exists() and repository.stat().st_dev != repository.parent.stat().st_dev:
            raise RepositoryError(
                f"{repository}: is a mount point, and models are staged beside the repository, on its file system: "
                f"choose a directory in it, such as --repository {repository / 'model_repository'}"
            )
        stage = Path(tempfile.mkdtemp(prefix=f".{repository.name}.staging-", dir=repository.parent))
    except OSError as error:
        raise RepositoryError(f"{repository}: cannot be written to: {error.strerror or error}") from error
    try:
        yield stage
    except OSError as error:
        raise RepositoryError(f"{error.filename or repository}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def place(repository: Path, models: Sequence[StagedModel], checkpoint_sha256: str) -> int:
    """Put models into the repository as its next version, all of them or none.

    Args:
        repository: the model repository.
        models: what one export makes; staged on the repository's file system.
        checkpoint_sha256: of the checkpoint that they were made from.

    Returns:
        The version number.

    Raises:
        RepositoryError: an existing model has another contract, or a file cannot be written.
    """
    repository = repository.resolve()
    for model in models:
        check_contract(repository, model.name, model.contract)
    version = 1 + max((number for model in models for number in versions(repository / model.name)), default=0)
    configs = {
        model.name: _config(repository / model.name / CONFIG, model, version, checkpoint_sha256) for model in models
    }
    undo: list[Path] = []
    old_configs: dict[Path, str] = {}
    try:
        repository.mkdir(exist_ok=True)
        for model in models:
            home = repository / model.name
            staged_config = model.files.parent / f"{model.name}.{CONFIG}"
            staged_config.write_text(configs[model.name], encoding="utf-8")
            if home.exists():
                old_configs[home / CONFIG] = (home / CONFIG).read_text(encoding="utf-8")
                undo.append(home / str(version))
                model.files.rename(home / str(version))
                staged_config.replace(home / CONFIG)
            else:
                whole = model.files.parent / f"{model.name}.whole"
                whole.mkdir()
                staged_config.rename(whole / CONFIG)
                model.files.rename(whole / str(version))
                undo.append(home)
                whole.rename(home)
    except BaseException as error:  # an interrupt too: all models or none
        for path in undo:
            shutil.rmtree(path, ignore_errors=True)
        for path, text in old_configs.items():
            path.write_text(text, encoding="utf-8")
        if isinstance(error, OSError):
            raise RepositoryError(f"{error.filename or repository}: {error.strerror or error}") from error
        raise
    return version


def template(model: str, file: str) -> str:
    """Text of a template file of a model."""
    return (resources.files("gomin_export") / "templates" / model / file).read_text(encoding="utf-8")


def check_contract(repository: Path, name: str, contract: ModelContract) -> None:
    """Refuse a model whose older versions in the repository tell clients something else.

    Raises:
        RepositoryError: the contracts differ, or what is there is no GOMIN model.
    """
    existing = repository / name / CONFIG
    if not existing.exists():
        return
    try:
        old = ModelContract.from_parameters(name, read_config(existing)).to_parameters()
    except GominError as error:
        raise RepositoryError(f"{existing}: {error}; remove it or choose another --repository") from error
    for parameter, value in contract.to_parameters().items():
        if old.get(parameter) != value:
            raise RepositoryError(
                f"{existing.parent}: its versions have {parameter} {old.get(parameter)}, the new one has {value}; "
                "versions of one model must agree for clients: choose another --repository, or remove the model"
            )


def _config(existing: Path, model: StagedModel, version: int, checkpoint_sha256: str) -> str:
    """The text of config.pbtxt: the template filled in, or the existing file, edits and all, and one line more."""
    provenance = _parameter_lines({f"{SHA256_PARAMETER}{version}": checkpoint_sha256})
    if existing.exists():
        return existing.read_text(encoding="utf-8").rstrip("\n") + "\n" + provenance
    text = Template(template(model.name, CONFIG)).substitute(n_mels=model.contract.mel.n_mels)
    return text + _parameter_lines(model.contract.to_parameters()) + provenance


def _parameter_lines(parameters: Mapping[str, str]) -> str:
    return "".join(
        f'parameters {{ key: "{name}" value: {{ string_value: "{value}" }} }}\n' for name, value in parameters.items()
    )
