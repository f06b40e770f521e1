"""Placing complete models into a Triton model repository.

Models are staged on the file system of the repository (see `staging`) and are placed by renaming, so that a server
never sees a part of a model. All models of one export get the same version number. An existing config.pbtxt is
read again when it is written, under a lock: an edit made during an export is not lost.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gomin_client.contract.model import FP32, ModelContract, Provenance
from gomin_client.contract.repository import CONFIG, read_config, versions
from gomin_client.errors import ContractError, GominError, UsageError
from gomin_client.interrupts import signals_in_use
from gomin_client.native.library import LIBRARY_FILE
from gomin_export.errors import ContractConflictError, RepositoryError, VersionTakenError
from gomin_export.parity.record import read_provenance
from gomin_export.repository.config import Deployment, conflicts, names_library, tensorrt_precision, with_provenance
from gomin_export.repository.staging import is_mount_point, locked, sync, write_file

_NEWEST_VERSION = 2**31 - 1


@dataclass(frozen=True)
class StagedModel:
    """One model that is ready to be placed.

    Attributes:
        name: the model's name.
        contract: its contract with clients.
        version: its version.
        home: a directory for its config.pbtxt, with the version directory in it if there is a new version.
        config: text of a new config.pbtxt; None keeps the existing one.
        provenance: provenance of the new version; None without a new version.
        is_shared: other exports make the same model: it may have been placed by one of them in the meantime.
    """

    name: str
    contract: ModelContract
    version: int
    home: Path
    config: str | None
    provenance: Provenance | None
    is_shared: bool = False


def choose_version(repository: Path, models: Sequence[str], wanted: int | None) -> int:
    """The version number of a new export: the wanted one, or the next one that is free in all its models.

    Raises:
        RepositoryError: the wanted version exists.
        UsageError: it is not a version number.
    """
    taken = {number: name for name in models for number in versions(repository / name)}
    if wanted is None:
        return 1 + max(taken, default=0)
    if not 1 <= wanted <= _NEWEST_VERSION:
        raise UsageError(f"--version {wanted}: expected 1 to {_NEWEST_VERSION}")
    if wanted in taken:
        raise RepositoryError(
            f"{repository / taken[wanted] / str(wanted)}: exists, and is another export; "
            f"the next free version is {1 + max(taken)}"
        )
    return wanted


def dropped_versions(repository: Path, model: str, new: int, keep: int | None) -> list[int]:
    """The versions of a model that are not among the `keep` newest after version `new` is placed.

    Raises:
        UsageError: `new` itself would be dropped.
    """
    if keep is None:
        return []
    if keep < 1:
        raise UsageError(f"--keep {keep}: expected at least 1")
    there = versions(repository / model)
    kept = sorted({*there, new})[-keep:]
    if new not in kept:
        raise UsageError(
            f"version {new}, --keep {keep}: {model} has {keep} newer versions, so {new} would be removed at once"
        )
    return [number for number in there if number not in kept]


def choose_config(
    repository: Path, model: str, text: str, deployment: Deployment, precision: str, overwrite: bool
) -> str | None:
    """The text of a new config.pbtxt for a model; None keeps the existing file with its edits.

    Args:
        repository: the model repository.
        model: its name.
        text: a new config.pbtxt without provenance.
        deployment: the settings asked for.
        precision: number format of the new version.
        overwrite: replace an existing file.

    Raises:
        RepositoryError: the settings asked for differ from the existing file; or its TensorRT accelerator rounds
            float32 models.
    """
    path = repository / model / CONFIG
    if overwrite or not path.exists():
        return text
    existing = path.read_text(encoding="utf-8")
    differing = conflicts(existing, text, deployment)
    if differing:
        raise RepositoryError(
            f"{path}: exists, and {'; '.join(differing)}: edit it, or give --overwrite-config to replace it"
        )
    tensorrt = tensorrt_precision(existing)
    if tensorrt not in (None, "FP32") and precision == FP32:
        raise RepositoryError(
            f"{path}: its TensorRT accelerator has precision_mode {tensorrt} for all versions, but this version is "
            f"{precision}: set it to FP32, which keeps the number formats of each version, or give --overwrite-config"
        )
    return None


def check_operators(repository: Path, model: str, version_needs: str) -> None:
    """Refuse a version that needs the operator library for a config.pbtxt that names other libraries only.

    Args:
        repository: the model repository.
        model: its name; its config.pbtxt is kept.
        version_needs: the operators.

    Raises:
        RepositoryError: the library is not named.
    """
    path = repository / model / CONFIG
    if not names_library(path.read_text(encoding="utf-8")):
        raise RepositoryError(
            f"{path}: its model_operations do not name {LIBRARY_FILE}, which has the operators {version_needs} that "
            f'this version needs: add op_library_filename: "{LIBRARY_FILE}" to them, or give --overwrite-config'
        )


def final_config(repository: Path, model: StagedModel, dropped: Sequence[int]) -> str:
    """The text of a model's config.pbtxt after an export is placed, with the provenance of every version."""
    home = repository / model.name
    text = (home / CONFIG).read_text(encoding="utf-8") if model.config is None else model.config
    known: dict[int, Provenance] = {}
    with contextlib.suppress(ContractError):  # a damaged file that will be overwritten, or no file
        known = Provenance.from_parameters(read_config(home / CONFIG))
    provenance = {}
    for number in versions(home):
        made = known.get(number) or read_provenance(home / str(number))
        if made is not None and number not in dropped:
            provenance[number] = made
    if model.provenance is not None:
        provenance[model.version] = model.provenance
    return with_provenance(text, provenance)


def place_models(repository: Path, models: Sequence[StagedModel], dropped: Mapping[str, Sequence[int]]) -> None:
    """Place models in the repository and remove old versions; either all changes are made or none.

    Called within `signals_deferred`: an interrupt between a rename and its record could not be undone.

    Args:
        repository: the model repository.
        models: all models of one export, each with its new version in its home if it has one, in the order in which
            they are placed.
        dropped: model → versions to remove.

    Raises:
        VersionTakenError: another export has placed a version of the same number.
        RepositoryError: an existing model has another contract, or a file cannot be written.
    """
    repository = repository.resolve()
    # of a mount point, which containers share, only the directory itself is the same to all
    with locked(repository if is_mount_point(repository) else repository.parent):
        for model in models:
            check_contract(repository, model.name, model.contract, overwrite=model.config is not None)
        moved: list[tuple[Path, Path]] = []
        try:
            repository.mkdir(exist_ok=True)
            for model in models:
                _place_model(repository, model, dropped.get(model.name, []), moved)
            for model in reversed(models):  # a model goes before the models that it calls
                for number in dropped.get(model.name, []):
                    _move(repository / model.name / str(number), model.home / f"dropped-{number}", moved)
            for model in models:
                sync(repository / model.name)
            sync(repository)
        except BaseException as error:
            for source, target in reversed(moved):
                with contextlib.suppress(OSError):  # the others can still be undone
                    target.replace(source) if target.is_file() else target.rename(source)
            if isinstance(error, OSError):
                raise RepositoryError(f"{error.filename or repository}: {error.strerror or error}") from error
            raise


def _place_model(repository: Path, model: StagedModel, dropped: Sequence[int], moved: list[tuple[Path, Path]]) -> None:
    """Place one model without removing versions; every rename is recorded in `moved`."""
    home, version = repository / model.name, model.version
    if model.is_shared and model.provenance is not None and _is_placed(home / str(version), model.home / str(version)):
        return  # by another export, since this one was planned
    config = model.home / CONFIG
    write_file(config, final_config(repository, model, dropped))
    sync(config)
    if not home.exists():
        _move(model.home, home, moved)
        return
    has_config = (home / CONFIG).exists()
    if has_config and model.provenance is None and (home / CONFIG).read_bytes() == config.read_bytes():
        return  # a server in poll mode would load the model again
    if not has_config:  # first: a server would make up a configuration for a version without one
        _move(config, home / CONFIG, moved)
    if model.provenance is not None:
        if (home / str(version)).is_dir():
            raise VersionTakenError(f"{home / str(version)}: was made during this export")
        if (home / str(version)).exists():
            raise RepositoryError(f"{home / str(version)}: is a file, not a version: remove it")
        _move(model.home / str(version), home / str(version), moved)
    if has_config:
        old = model.home / "config.old"
        shutil.copyfile(home / CONFIG, old)  # the model always has a config.pbtxt
        config.replace(home / CONFIG)
        moved.append((home / CONFIG, old))


def _is_placed(placed: Path, staged: Path) -> bool:
    """Whether a version in the repository serves the files of a staged one."""
    files = {path.name for path in staged.glob("*.onnx")}
    return bool(files) and all(
        (placed / name).is_file() and (placed / name).read_bytes() == (staged / name).read_bytes() for name in files
    )


def _move(source: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    source.rename(target)
    moved.append((source, target))


def has_contract(repository: Path, name: str, described: ModelContract) -> bool:
    """Whether a model's versions have this contract, or could have: there is no model, or its config is unreadable."""
    try:
        old = ModelContract.from_parameters(name, read_config(repository / name / CONFIG))
    except ContractError:
        return True
    return old.to_parameters() == described.to_parameters()


def check_contract(repository: Path, name: str, described: ModelContract, overwrite: bool) -> None:
    """Refuse a model whose older versions in the repository have another contract.

    Raises:
        ContractConflictError: the contracts differ.
        RepositoryError: the existing model is not a GOMIN model, and `overwrite` is not set.
    """
    existing = repository / name / CONFIG
    if not existing.exists():
        return
    try:
        old = ModelContract.from_parameters(name, read_config(existing)).to_parameters()
    except GominError as error:
        if overwrite:
            return
        where = "" if str(existing) in str(error) else f"{existing}: "
        raise RepositoryError(
            f"{where}{error}; correct it, give --overwrite-config, or choose another --repository"
        ) from error
    for parameter, value in described.to_parameters().items():
        if old.get(parameter) != value:
            raise ContractConflictError(
                f"{existing.parent}: its versions have {parameter} {old.get(parameter)}, the new one has {value}; "
                "versions of one model must agree for clients: choose another --repository, or remove the model"
            )


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Delay signals that end the program until the end of the block: it takes milliseconds and is not done by half."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []

    def note(number: int, _frame: object) -> None:
        caught.append(number)

    handlers = [(number, signal.signal(number, note)) for number in signals_in_use()]
    try:
        yield
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
        if caught:
            os.kill(os.getpid(), caught[0])
