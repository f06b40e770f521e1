"""Writing files and folders atomically: they are complete or they do not exist.

A file or folder is written under a temporary name, .NAME.HEX.part, which is locked for as long as the program that
writes it runs. What a killed program leaves behind is therefore recognised by its free lock, and removed by the next
run that writes the same one.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gomin_client.errors import FileError

try:
    import fcntl
except ImportError:  # Windows: temporary files are not locked, and those of killed programs stay
    fcntl = None  # type: ignore[assignment]

_unfinished: set[Path] = set()
_PART = re.compile(r"(\..{0,50}\.)[0-9a-f]{12}\.part", re.DOTALL)
_leftovers: dict[str, dict[str, list[Path]]] = {}  # folder → prefix of temporary names → files found there at first
_leftovers_lock = threading.Lock()


def discard_unfinished() -> None:
    """Remove the files that other threads are still writing; called when the program is about to end."""
    for part in list(_unfinished):
        _remove(part)


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """A directory that is removed at the end of the block.

    Raises:
        FileError: it cannot be made.
    """
    with temporary_file_errors():
        directory = Path(tempfile.mkdtemp(prefix="gomin-"))
    _unfinished.add(directory)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        _unfinished.discard(directory)
        with _leftovers_lock:
            _leftovers.pop(os.path.abspath(directory), None)  # or a process that runs for months keeps all of them


@contextmanager
def temporary_file_errors() -> Iterator[None]:
    """Turn operating system errors about temporary files into ones that name their directory.

    Raises:
        FileError: says which directory, and how to choose another.
    """
    try:
        yield
    except OSError as error:
        try:
            directory = tempfile.gettempdir()
        except OSError:  # no directory at all can be written: its message lists those that were tried
            raise FileError(f"no temporary directory can be written ({error.strerror}): set TMPDIR to one") from error
        raise FileError(
            f"{directory}: temporary files cannot be written there: {error.strerror or error}; set TMPDIR to another "
            "directory"
        ) from error


def is_special(path: Path) -> bool:
    """Whether a path, or what it links to, is a pipe, a socket or a device.

    A search must not open it, or might never come to its end, and an output must not replace it.
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # a dangling link, for example
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which is renamed to `path` if the block ends without an error.

    Args:
        path: the file to write; its directory is created if it is missing.

    Raises:
        FileError: the file cannot be written.
    """
    if is_special(path):
        raise FileError(f"{path}: is not a file but a pipe or a device, which would be replaced")
    with _part(path, _create_file) as part:
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())  # or a crash of the machine may leave the new name with no content
        part.replace(path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, which is renamed to `path` if the block ends without an error.

    Args:
        path: the folder to write; its parent is created if it is missing. A folder that has the name is replaced.

    Raises:
        FileError: the folder cannot be written.
    """
    with _part(path, _create_folder) as part:
        yield part
        if not path.is_dir():
            part.rename(path)
            return
        with _part(path, _create_folder) as old:  # a folder cannot be renamed to one that has files
            old.rmdir()
            path.rename(old)
            try:
                part.rename(path)
            except BaseException:  # an interrupt too: `old` is about to be removed
                old.rename(path)
                raise


@contextmanager
def _part(path: Path, create: Callable[[Path], int | None]) -> Iterator[Path]:
    """A locked temporary file or folder beside `path`, which is removed at the end, unless it was renamed."""
    part: Path | None = None
    lock: int | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{path.name[:50]}."
        _remove_leftovers(path.parent, prefix)
        part, lock = _locked(path.parent, prefix, create)
        yield part
    except (FileExistsError, NotADirectoryError) as error:
        raise FileError(f"{path}: cannot be written: {error.filename} is a file, not a directory") from error
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {_reason(error)}") from error
    finally:
        if part is not None:
            _remove(part)
            _unfinished.discard(part)
        if lock is not None:
            os.close(lock)


def _reason(error: OSError) -> str:
    """The system's words for an error, without a path of a temporary file."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        _, _, text = error.args[0][0]  # of copytree: source, target and message for each file
        return re.sub(r"^\[Errno \d+\] |: '.*", "", text, flags=re.DOTALL)
    return error.strerror or str(error)


def _create_file(part: Path) -> int:
    # not with tempfile: its files are private, and outputs are to have the permissions that the umask leaves
    return os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)


def _create_folder(part: Path) -> int | None:
    part.mkdir()
    return None if fcntl is None else os.open(part, os.O_RDONLY | os.O_DIRECTORY)


def _remove(part: Path) -> None:
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def _locked(folder: Path, prefix: str, create: Callable[[Path], int | None]) -> tuple[Path, int | None]:
    """A new temporary file or folder, and the descriptor that its lock is held by."""
    while True:
        part = folder / f"{prefix}{secrets.token_hex(6)}.part"
        descriptor = create(part)
        if fcntl is None or descriptor is None:
            if descriptor is not None:
                os.close(descriptor)
            _unfinished.add(part)
            return part, None
        try:
            is_ours = _lock(descriptor) and part.exists()
        except OSError:  # the file system has no locks: leftovers stay
            is_ours = True
        if is_ours:
            _unfinished.add(part)
            return part, descriptor
        os.close(descriptor)  # another run took it for a leftover before it was locked
        _remove(part)


def _remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove what killed programs left of files with this prefix. The folder is listed once, not for every file."""
    if fcntl is None:
        return
    key = os.path.abspath(folder)
    with _leftovers_lock:
        if key not in _leftovers:
            found: dict[str, list[Path]] = {}
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    if match := _PART.fullmatch(entry.name):
                        found.setdefault(match[1], []).append(folder / entry.name)
            _leftovers[key] = found
        parts = _leftovers[key].pop(prefix, [])
    for part in parts:
        with suppress(OSError):
            mode = os.O_DIRECTORY if part.is_dir() else os.O_RDWR
            descriptor = os.open(part, mode | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if _lock(descriptor):
                    _remove(part)
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a file for as long as its descriptor is open; False if another program has locked it.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
