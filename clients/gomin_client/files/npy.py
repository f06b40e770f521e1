"""Writing .npy arrays that grow along their last axis, in C order and in constant memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MEMORY = 32 << 20  # bytes held at a time


def write_npy(path: Path, blocks: Iterable[NDArray[np.float32]]) -> None:
    """Write blocks of columns as one .npy array.

    The blocks are stored, column by column, in an unnamed temporary file on the same disk, which is transposed at the
    end.

    Args:
        path: the file to write.
        blocks: at least one, (channels, rows, any number of columns) each. The channel axis of a single channel is not
            written.

    Raises:
        OSError: the file cannot be written.
    """
    with tempfile.TemporaryFile(dir=path.parent) as spool:
        channels = rows_each = 0
        for block in blocks:
            channels, rows_each, _ = block.shape
            spool.write(np.ascontiguousarray(np.moveaxis(block, -1, 0)).data)
        rows = channels * rows_each
        columns = spool.tell() // (4 * rows)
        with path.open("wb") as file:
            shape = (channels, rows_each, columns) if channels > 1 else (rows_each, columns)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
            rows_at_once = max(1, _MEMORY // (4 * max(1, columns)))  # each pass reads the whole spool
            for first in range(0, rows, rows_at_once):
                spool.seek(0, os.SEEK_SET)
                count = min(rows_at_once, rows - first)
                transposed = np.empty((count, columns), "<f4")
                columns_at_once = max(1, _MEMORY // (4 * rows))
                for column in range(0, columns, columns_at_once):
                    data = spool.read(4 * rows * min(columns_at_once, columns - column))
                    part = np.frombuffer(data, np.float32).reshape(-1, rows)
                    transposed[:, column : column + len(part)] = part[:, first : first + count].T
                file.write(transposed.data)
