"""Writing files atomically: a file is complete or it does not exist."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gomin_client.errors import FileError

_unfinished: set[Path] = set()


def discard_unfinished() -> None:
    """Remove the files that other threads are still writing; called when the program is about to end."""
    for part in list(_unfinished):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """A directory that is removed at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="gomin-") as name:
        directory = Path(name)
        _unfinished.add(directory)
        try:
            yield directory
        finally:
            _unfinished.discard(directory)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which is renamed to `path` if the block ends without an error.

    Args:
        path: the file to write; its directory is created if it is missing.

    Raises:
        FileError: the file cannot be written.
    """
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.parent / f".{path.name[:50]}.{secrets.token_hex(6)}.part"
        # not with tempfile: its files are private, and outputs are to have the permissions that the umask leaves
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        _unfinished.add(part)
        yield part
        part.replace(path)
    except (FileExistsError, NotADirectoryError) as error:
        raise FileError(f"{path}: cannot be written: {error.filename} is a file, not a directory") from error
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
            _unfinished.discard(part)
