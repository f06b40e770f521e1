"""Staging directories: an export builds its models there, and they are renamed into the repository when complete.

A server in poll mode takes every directory in the repository for a model. One that is not complete is an error in its
log at every poll. If its name contains a dot, the server reports "not ready" from then on, even after the directory is
gone. So models are staged beside the repository, on the same file system.

If the repository is a mount point, nothing beside it is on its file system. Models are then built in the directory for
temporary files, and copied into a hidden directory inside the model's own directory, which a server ignores. Only while
the first version of a model is copied, a server that polls reports an error for this model; others are not affected.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gomin_export.errors import RepositoryError

_INSIDE = ".staging-"  # in a model's directory: Triton ignores what is not a number there


def is_mount_point(directory: Path) -> bool:
    """Whether an existing directory is a mount point, into which nothing can be renamed from beside it.

    Args:
        directory: a path without links.
    """
    if not directory.is_dir():
        return False
    if directory.stat().st_dev != directory.parent.stat().st_dev:
        return True
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes()  # a directory may be bound from the same file system
    except OSError:  # not Linux
        return False
    escaped = (line.split()[4] for line in mounts.splitlines())
    places = (re.sub(rb"\\(\d{3})", lambda code: bytes([int(code[1], 8)]), place) for place in escaped)
    return os.fsencode(directory) in places


def require_writable(repository: Path) -> None:
    """Check that models can be placed, before the work of an export.

    Raises:
        RepositoryError: the repository is a file, or cannot be written to.
    """
    try:
        if repository.exists() and not repository.is_dir():
            raise RepositoryError(f"{repository}: is a file, not a directory")
        there = next(path for path in (repository, *repository.parents) if path.exists())
        if not there.is_dir():
            raise RepositoryError(f"{repository}: cannot be written to: {there} is a file")
        beside = repository.exists() and not is_mount_point(repository)
        for path in {there, repository.parent if beside else there}:
            if not os.access(path, os.W_OK | os.X_OK):
                raise RepositoryError(
                    f"{repository}: cannot be written to: no permission for {path}, or its file system is read-only"
                )
    except OSError as error:
        raise RepositoryError(f"{repository}: cannot be written to: {error.strerror or error}") from error


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """A temporary directory for the models of an export, removed at the end in any case.

    Directories left by killed exports are removed too.

    Raises:
        RepositoryError: the repository or the staging directory cannot be made.
    """
    repository = repository.resolve()
    require_writable(repository)
    try:
        if is_mount_point(repository):
            home, prefix = Path(tempfile.gettempdir()), "gomin-export.staging-"
        else:
            home, prefix = repository.parent, f".{repository.name}.staging-"
            home.mkdir(parents=True, exist_ok=True)
        remove_leftovers(home, prefix)
        stage = Path(tempfile.mkdtemp(prefix=prefix, dir=home))
    except OSError as error:
        raise RepositoryError(f"{repository}: cannot be written to: {error.strerror or error}") from error
    try:
        with locked(stage):
            yield stage
    except OSError as error:
        raise RepositoryError(f"{error.filename or repository}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def transferred(repository: Path, homes: Sequence[Path]) -> Iterator[list[Path]]:
    """Staged models on the file system of the repository, safely on the disk.

    Args:
        repository: the model repository.
        homes: the staged models' directories, each with the name of its model.

    Yields:
        The same directories; if the repository is a mount point, copies of them inside the models' own directories,
        which are removed at the end.
    """
    repository = repository.resolve()
    with ExitStack() as stack:
        if is_mount_point(repository):
            homes = [stack.enter_context(_copied(home, repository / home.name)) for home in homes]
        for home in homes:
            sync_tree(home)
        yield list(homes)


@contextmanager
def _copied(staged: Path, home: Path) -> Iterator[Path]:
    """A copy of a staged model inside the model's directory in the repository."""
    is_new = not home.exists()
    home.mkdir(exist_ok=True)
    remove_leftovers(home, _INSIDE)
    copy = Path(tempfile.mkdtemp(prefix=_INSIDE, dir=home))
    try:
        with locked(copy):
            copy_tree(staged, copy)
            yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):  # not empty: the model was placed
                home.rmdir()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name a file that is written in the block: the `OSError` of a full disk does not.

    Raises:
        RepositoryError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise RepositoryError(f"{path}: {error.strerror or error}") from error


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file.

    Raises:
        RepositoryError: it cannot be written.
    """
    with writing(path):
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a directory to a new or an existing one, up to the first file that cannot be written.

    Raises:
        RepositoryError: says which, and why. `shutil.copytree` alone goes on and raises a list of all files.
        OSError: the target cannot be made.
    """
    try:
        shutil.copytree(source, target, copy_function=copy_file, dirs_exist_ok=True)
    except shutil.Error as error:  # of directories inside
        _, path, reason = error.args[0][0]
        raise RepositoryError(f"{path}: {reason}") from error


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copy a file with its times and permissions.

    Raises:
        RepositoryError: it cannot be read or written. The `OSError` of a full disk has the name of the source.
    """
    try:
        shutil.copy2(source, target)
    except OSError as error:
        raise RepositoryError(f"{target}: {error.strerror or error}") from error


@contextmanager
def turn(homes: Sequence[Path], say: Callable[[str], None]) -> Iterator[bool]:
    """Hold the locks of models for a whole export: exports that remove versions follow one another.

    Args:
        homes: the models' directories in the repository; models that do not exist yet are not locked.
        say: called with a line of text before waiting.

    Yields:
        Whether another export had to be waited for.
    """
    waited = False
    with ExitStack() as stack:
        for home in homes:
            if not home.is_dir():
                continue
            try:
                stack.enter_context(locked(home, wait=False))
            except BlockingIOError:
                say(f"waiting for another export that removes versions of {home.name}")
                stack.enter_context(locked(home))
                waited = True
        yield waited


def remove_leftovers(home: Path, prefix: str) -> None:
    """Remove staging directories whose exports were killed; those in use are locked."""
    for left in home.glob(f"{prefix}*"):
        with contextlib.suppress(OSError), locked(left, wait=False):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def locked(directory: Path, wait: bool = True) -> Iterator[None]:
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


def sync_tree(directory: Path) -> None:
    """Write all files below a directory to the disk, and the directory itself: a rename then never outruns them."""
    for path in [*directory.rglob("*"), directory]:
        sync(path)


def sync(path: Path) -> None:
    """Write one file or directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot sync directories
            raise
    finally:
        os.close(handle)
