"""Rows of a data set as files: where they are read from and written to, and whose fault an error is."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.batch.outputs import SYNTHESIZE
from gomin_client.batch.run import Outcome
from gomin_client.errors import FileError, ServerError, UsageError
from gomin_client.files import formats
from gomin_client.files.atomic import temporary_file_errors

ERROR, WARNING = "error", "warning"  # columns of messages
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_OF_MACHINE = _FULL | {errno.EMFILE, errno.ENFILE}  # every other row would fail, too


@dataclass(frozen=True)
class Columns:
    """The names of columns, and the form of results.

    Attributes:
        column: what is read.
        result: what is made.
        target: paths to write to; None to put results into the column `result`.
        extension: the format of results in that column, as bytes; None for arrays.
    """

    column: str
    result: str
    target: str | None
    extension: str | None

    def check(self, kind: str, subtype: str | None) -> None:
        """Refuse what would make every row fail.

        Raises:
            UsageError: one name for two columns, or a format or subtype that cannot be written.
        """
        named = [name for name in (self.result, self.target, ERROR, WARNING) if name is not None]
        if len(set(named)) < len(named):
            raise UsageError(f"columns {', '.join(named)}: expected different names")
        if self.extension is None and self.target is None and subtype is not None:
            raise UsageError(f"subtype {subtype!r}: arrays have none")
        if self.extension is None or self.target is not None:
            return
        known = formats.to_write(Path(f"x{self.extension}"))
        if known is None or known.kind != kind:
            expected = ", ".join(formats.writable(kind))
            raise UsageError(f"extension {self.extension!r}: expected {expected}, or None for arrays")
        known.require(Path(f"x{self.extension}"))
        if subtype is not None and subtype not in known.subtypes:
            raise UsageError(f"subtype {subtype!r}: {self.extension} has {', '.join(known.subtypes) or 'none'}")


def source_of(value: Any, column: str, task: str, given: Path) -> Path:
    """The file of a row: the one that it names, or a temporary one with its content.

    Args:
        value: bytes, a path, a dict with either, or a mel.
        column: the value's column, for messages.
        task: what is made of it; see `FileJob`.
        given: where to write content, without extension.

    Raises:
        FileError: the value is nothing of these.
        OSError: the temporary file cannot be written.
    """
    if isinstance(value, Mapping):  # the audio column of a Hugging Face data set
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, str | Path):
        return Path(value)
    if isinstance(value, bytes | bytearray | memoryview):
        if task == SYNTHESIZE:
            given = given.with_suffix(".npz" if bytes(value[:2]) == b"PK" else ".npy")
        given.write_bytes(value)
        return given
    if task == SYNTHESIZE and isinstance(value, np.ndarray | list):
        given = given.with_suffix(".npy")
        try:
            np.save(given, _array(value), allow_pickle=False)
        except ValueError as error:
            raise FileError(f"{column}: is not an array of numbers") from error
        return given
    what = "is null" if value is None else f"has a value of type {type(value).__name__}"
    array = ", or an array" if task == SYNTHESIZE else ""
    raise FileError(f"{column}: {what}; expected bytes or a path{array}")


def target_of(value: Any) -> Path:
    """The path that a row is written to.

    Raises:
        FileError: it is no path.
    """
    if not isinstance(value, str | Path) or not str(value):
        raise FileError(f"the path to write to is {value!r}; expected a string")
    return Path(value)


def refuse_faults(outcomes: Iterable[Outcome], folder: Path) -> None:
    """Raise the first error that is the server's or the machine's: every row that follows would have it, too.

    Args:
        outcomes: of the rows.
        folder: where their temporary files are.

    Raises:
        ServerError: the server cannot be reached, or is not ready.
        FileError: a disk is full or read-only, or too many files are open.
    """
    for outcome in outcomes:
        error = outcome.error
        if isinstance(error, ServerError):
            raise error
        reason = None if error is None else error.__cause__
        if not isinstance(reason, OSError) or reason.errno not in _OF_MACHINE:
            continue
        if reason.errno in _FULL and outcome.job.target.parent == folder:
            with temporary_file_errors():
                raise reason
        raise FileError(outcome.reason) from reason


def _array(value: Any) -> NDArray[Any]:
    """A mel as an array: Arrow's nested lists are arrays of arrays.

    Raises:
        ValueError: its rows have different lengths.
    """
    plain = isinstance(value, np.ndarray) and value.dtype != object
    return value if plain else np.stack([np.asarray(item, np.float64) for item in value])
