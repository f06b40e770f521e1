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
from pathlib import Path

from gomin_client.contract import ModelContract
from gomin_client.errors import GominError, UsageError
from gomin_client.model_repository import CONFIG, read_config, versions
from gomin_export.deployment import provenance_lines, without_provenance
from gomin_export.errors import RepositoryError


@dataclass(frozen=True)
class StagedModel:
    """One version of one model, complete.

    Attributes:
        name: the model's name.
        contract: what its config.pbtxt tells clients.
        home: directory of config.pbtxt and the version directory, as in a repository.
        config_only: there is only a config.pbtxt, for a version that is in the repository already.
    """

    name: str
    contract: ModelContract
    home: Path
    config_only: bool = False


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


def choose_version(repository: Path, models: Sequence[str], wanted: int | None) -> int:
    """The version number of a new export: the wanted one, or the next that is free in all its models.

    Raises:
        RepositoryError: the wanted version exists.
    """
    taken = {number: name for name in models for number in versions(repository / name)}
    if wanted is None:
        return 1 + max(taken, default=0)
    if wanted < 1:
        raise UsageError(f"--version {wanted}: Triton's versions begin at 1")
    if wanted in taken:
        raise RepositoryError(
            f"{repository / taken[wanted] / str(wanted)}: exists, and is another export; "
            f"the next free version is {1 + max(taken)}"
        )
    return wanted


def dropped_versions(repository: Path, model: str, new: int, keep: int | None) -> list[int]:
    """The versions of a model that are not among the `keep` newest once `new` is there.

    Raises:
        UsageError: `new` itself would not be.
    """
    if keep is None:
        return []
    if keep < 1:
        raise UsageError(f"--keep {keep}: expected at least 1")
    there = versions(repository / model)
    kept = sorted({*there, new})[-keep:]
    if new not in kept:
        raise UsageError(f"--version {new} --keep {keep}: {model} has {keep} newer versions, so {new} would go at once")
    return [number for number in there if number not in kept]


def choose_config(repository: Path, model: str, text: str, given: bool, overwrite: bool) -> str:
    """The text of a model's config.pbtxt: the one that is there, edits and all, or the new one.

    Args:
        repository: the model repository.
        model: its name.
        text: a new config.pbtxt without provenance.
        given: whether settings in it were asked for.
        overwrite: whether it may replace an existing one.

    Raises:
        RepositoryError: settings were asked for that the existing file does not have.
    """
    path = repository / model / CONFIG
    if not path.exists():
        return text
    existing = path.read_text(encoding="utf-8")
    if overwrite:
        return text + provenance_lines(existing)
    if given and without_provenance(existing).strip() != text.strip():
        new_lines, old_lines = text.splitlines(), existing.splitlines()
        difference = next((line for line in new_lines if line not in old_lines), "")
        raise RepositoryError(
            f"{path}: exists, and differs from what the options ask for (first in {difference.strip()!r}): "
            "edit it, or give --overwrite-config to write it anew"
        )
    return existing


def place(repository: Path, version: int, models: Sequence[StagedModel], dropped: Mapping[str, list[int]]) -> None:
    """Put models into the repository, and take old versions out: everything or nothing.

    Args:
        repository: the model repository.
        version: the new version, a directory in each model's home.
        models: what one export makes, in the order in which they are to appear.
        dropped: model → versions to remove.

    Raises:
        RepositoryError: an existing model has another contract, or a file cannot be written.
    """
    repository = repository.resolve()
    for model in models:
        check_contract(repository, model.name, model.contract)
    moved: list[tuple[Path, Path]] = []
    old_configs: dict[Path, str] = {}

    def move(source: Path, target: Path) -> None:
        source.rename(target)
        moved.append((source, target))

    try:
        repository.mkdir(exist_ok=True)
        for model in models:
            home = repository / model.name
            if not home.exists():
                move(model.home, home)
                continue
            old_configs[home / CONFIG] = (home / CONFIG).read_text(encoding="utf-8")
            if not model.config_only:
                move(model.home / str(version), home / str(version))
            (model.home / CONFIG).replace(home / CONFIG)
            for number in dropped.get(model.name, []):
                move(home / str(number), model.home / f"dropped-{number}")
    except BaseException as error:  # an interrupt too: all models or none
        for source, target in reversed(moved):
            target.rename(source)
        for path, text in old_configs.items():
            path.write_text(text, encoding="utf-8")
        if isinstance(error, OSError):
            raise RepositoryError(f"{error.filename or repository}: {error.strerror or error}") from error
        raise


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
