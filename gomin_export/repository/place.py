"""Placing complete models into a Triton model repository.

Models are staged in a directory beside the repository, on the same file system, and are placed by renaming, so that a
server never sees a part of a model. All models of one export get the same version number. An existing config.pbtxt is
read again when it is written, under a lock: an edit made during an export is not lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gomin_client.contract.model import ModelContract, Provenance
from gomin_client.contract.repository import CONFIG, read_config, versions
from gomin_client.errors import ContractError, GominError, UsageError
from gomin_export.errors import RepositoryError
from gomin_export.parity.record import read_provenance
from gomin_export.repository.config import Deployment, conflicts, tensorrt_precision, with_provenance

_NEWEST_VERSION = 2**31 - 1


@dataclass(frozen=True)
class StagedModel:
    """One model that is ready to be placed.

    Attributes:
        name: the model's name.
        contract: its contract with clients.
        home: a directory for its config.pbtxt, with the version directory in it if there is a new version.
        config: text of a new config.pbtxt; None keeps the existing one.
        provenance: provenance of the new version; None without a new version.
    """

    name: str
    contract: ModelContract
    home: Path
    config: str | None
    provenance: Provenance | None


def require_writable(repository: Path) -> None:
    """Check that models can be placed, before the work of an export.

    Raises:
        RepositoryError: the repository is a file or a mount point, or cannot be written to.
    """
    try:
        if repository.exists() and not repository.is_dir():
            raise RepositoryError(f"{repository}: is a file, not a directory")
        if repository.exists() and repository.stat().st_dev != repository.parent.stat().st_dev:
            raise RepositoryError(
                f"{repository}: is a mount point, and models are staged beside the repository, on its file system: "
                f"choose a directory in it, such as --repository {repository / 'model_repository'}"
            )
        there = next(path for path in (repository, *repository.parents) if path.exists())
        if not there.is_dir():
            raise RepositoryError(f"{repository}: cannot be written to: {there} is a file")
        for path in {there, repository.parent if repository.exists() else there}:
            if not os.access(path, os.W_OK | os.X_OK):
                raise RepositoryError(
                    f"{repository}: cannot be written to: no permission for {path}, or its file system is read-only"
                )
    except OSError as error:
        raise RepositoryError(f"{repository}: cannot be written to: {error.strerror or error}") from error


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """A temporary directory beside the repository, removed at the end in any case.

    Directories left by killed exports are removed too.

    Raises:
        RepositoryError: the repository or the staging directory cannot be made.
    """
    repository = repository.resolve()
    require_writable(repository)
    prefix = f".{repository.name}.staging-"
    try:
        repository.parent.mkdir(parents=True, exist_ok=True)
        for left in repository.parent.glob(f"{prefix}*"):
            with contextlib.suppress(OSError), _locked(left, wait=False):  # a directory in use is locked
                shutil.rmtree(left, ignore_errors=True)
        stage = Path(tempfile.mkdtemp(prefix=prefix, dir=repository.parent))
    except OSError as error:
        raise RepositoryError(f"{repository}: cannot be written to: {error.strerror or error}") from error
    try:
        with _locked(stage):
            yield stage
    except OSError as error:
        raise RepositoryError(f"{error.filename or repository}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


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
        RepositoryError: the settings asked for differ from the existing file; or its TensorRT accelerator has another
            precision.
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
    if tensorrt not in (None, precision.upper()):
        raise RepositoryError(
            f"{path}: its TensorRT accelerator runs all versions in {tensorrt}, but this version is {precision}: "
            "use another --repository, or give --overwrite-config"
        )
    return None


def final_config(repository: Path, model: StagedModel, version: int, dropped: Sequence[int]) -> str:
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
        provenance[version] = model.provenance
    return with_provenance(text, provenance)


def place_models(
    repository: Path, version: int, models: Sequence[StagedModel], dropped: Mapping[str, Sequence[int]]
) -> None:
    """Place models in the repository and remove old versions; either all changes are made or none.

    Called within `signals_deferred`: an interrupt between a rename and its record could not be undone.

    Args:
        repository: the model repository.
        version: the new version, a directory in the home of each model that has one.
        models: all models of one export, in the order in which they are placed.
        dropped: model → versions to remove.

    Raises:
        RepositoryError: an existing model has another contract, or a file cannot be written.
    """
    repository = repository.resolve()
    with _locked(repository.parent):
        for model in models:
            check_contract(repository, model.name, model.contract, overwrite=model.config is not None)
        moved: list[tuple[Path, Path]] = []
        try:
            repository.mkdir(exist_ok=True)
            for model in models:
                _place_model(repository, version, model, dropped.get(model.name, []), moved)
        except BaseException as error:
            for source, target in reversed(moved):
                with contextlib.suppress(OSError):  # the others can still be undone
                    target.replace(source) if target.is_file() else target.rename(source)
            if isinstance(error, OSError):
                raise RepositoryError(f"{error.filename or repository}: {error.strerror or error}") from error
            raise


def _place_model(
    repository: Path, version: int, model: StagedModel, dropped: Sequence[int], moved: list[tuple[Path, Path]]
) -> None:
    """Place one model; every rename is recorded in `moved`."""
    home = repository / model.name
    config = model.home / CONFIG
    config.write_text(final_config(repository, model, version, dropped), encoding="utf-8")

    def move(source: Path, target: Path) -> None:
        source.rename(target)
        moved.append((source, target))

    if not home.exists():
        move(model.home, home)
        return
    if model.provenance is not None:
        if (home / str(version)).exists():
            raise RepositoryError(f"{home / str(version)}: was made during this export; run it again")
        move(model.home / str(version), home / str(version))
    old = model.home / "config.old"
    if (home / CONFIG).exists():
        shutil.copyfile(home / CONFIG, old)  # the model always has a config.pbtxt
        config.replace(home / CONFIG)
        moved.append((home / CONFIG, old))
    else:
        move(config, home / CONFIG)
    for number in dropped:
        move(home / str(number), model.home / f"dropped-{number}")


def check_contract(repository: Path, name: str, described: ModelContract, overwrite: bool) -> None:
    """Refuse a model whose older versions in the repository have another contract.

    Raises:
        RepositoryError: the contracts differ; or the existing model is not a GOMIN model, and `overwrite` is not set.
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
            raise RepositoryError(
                f"{existing.parent}: its versions have {parameter} {old.get(parameter)}, the new one has {value}; "
                "versions of one model must agree for clients: choose another --repository, or remove the model"
            )


@contextmanager
def _locked(directory: Path, wait: bool = True) -> Iterator[None]:
    """Hold a directory's lock, which is released if the process ends.

    Raises:
        OSError: another process holds it, and `wait` is not set.
    """
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Delay Ctrl-C until the end of the block, which takes milliseconds and cannot be done by half."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []

    def note(number: int, _frame: object) -> None:
        caught.append(number)

    handlers = [(number, signal.signal(number, note)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
        if caught:
            os.kill(os.getpid(), caught[0])
