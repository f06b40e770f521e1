"""Writing files that appear complete or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gomin_client.errors import FileError


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its name when the block ends without an error.

    Args:
        path: the file to write; its directory is made if missing.

    Raises:
        FileError: the file cannot be written.
    """
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:50]}.", suffix=".part", dir=path.parent)
        os.close(handle)
        part = Path(name)
        yield part
        part.chmod(0o666 & ~_umask())  # temporary files are private, outputs are not
        part.replace(path)
        part = None
    except (FileExistsError, NotADirectoryError) as error:
        raise FileError(f"{path}: cannot be written: {error.filename} is a file, not a directory") from error
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _umask() -> int:
    """The process's umask; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
