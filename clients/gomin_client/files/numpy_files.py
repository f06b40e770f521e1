"""Reading .npy and .npz files: what a header claims is checked before memory is allocated or anything is inflated."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.errors import FileError

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000  # bytes that numpy accepts
# Of compressed arrays: mels that are not silent do not compress to a tenth, and deflate cannot do better than 1 : 1032.
_INFLATED_FREELY = 1 << 30  # bytes
_LARGEST_RATIO = 50
# zipfile needs ten times as much memory for the table of contents as it takes in the file
_LARGEST_DIRECTORY = 1 << 20  # bytes
_END = struct.Struct("<4s4H2LH")  # of an archive: signature …, size of the table of contents, its start …
_LOCATOR = struct.Struct("<4sLQL")  # in front of it in large archives: signature, …, start of another end …
_END_64 = struct.Struct("<4sQ2H2L4Q")  # that other end: …, size of the table of contents, its start


@dataclass(frozen=True)
class Header:
    """The header of an array.

    Attributes:
        shape: the claimed shape.
        dtype: the type of the numbers.
        size: bytes of the header and of the numbers that it claims.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    size: int


def read_npy(path: Path) -> NDArray[Any]:
    """The array in a .npy file, as a memory map.

    Raises:
        FileError: another file, objects instead of numbers, no elements, or fewer numbers than its header claims.
        OSError: it cannot be read.
    """
    with path.open("rb") as file, _numpy_errors(path):
        start = _start(path, file)
        if start.startswith(b"PK"):
            raise FileError(f"{path}: is an archive with the extension of a bare array; call it .npz")
        header = _header(path, start, "its array")
        stored = file.seek(0, io.SEEK_END)
        if header.size > stored:
            raise FileError(
                f"{path}: is truncated or damaged: an array of shape {header.shape} and type {header.dtype} takes "
                f"{header.size} bytes, and the file has {stored}"
            )
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


class NpzFile:
    """A .npz file whose arrays are read one by one; a context manager.

    Attributes:
        names: the names of its arrays.
        largest: size of the largest of them, in bytes, as the archive declares it; no more is ever inflated.
    """

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            FileError: it is another file, or damaged.
            OSError: it cannot be read.
        """
        self._path = path
        with path.open("rb") as file:
            if _start(path, file).startswith(_MAGIC):
                raise FileError(f"{path}: is a bare array with the extension of an archive; call it .npy")
        with _numpy_errors(path):
            size = _directory_size(path)
            if size > _LARGEST_DIRECTORY:
                raise FileError(f"{path}: is not a mel: an archive whose table of contents takes {size} bytes")
            self._archive = zipfile.ZipFile(path)
        self._members = {member.filename.removesuffix(".npy"): member for member in self._archive.infolist()}
        self.names = list(self._members)
        self.largest = max((member.file_size for member in self._members.values()), default=0)

    def read(self, name: str, *, largest: int | None = None) -> NDArray[Any]:
        """One of its arrays.

        Args:
            name: see `names`.
            largest: the largest number of elements that it may have.

        Raises:
            FileError: it is damaged, has objects instead of numbers, other claims than contents, or too many elements.
        """
        path, member, what = self._path, self._members[name], f"its {name}"
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FileError(f"{path}: {what} is compressed in another way than numpy's; write it with numpy.savez")
        with _numpy_errors(path):
            with self._archive.open(member) as file:
                header = _header(path, file.read(_LONGEST_HEADER), what)
            if header.size != member.file_size:
                raise FileError(
                    f"{path}: is truncated or damaged: {what} of shape {header.shape} and type {header.dtype} takes "
                    f"{header.size} bytes, and the archive has {member.file_size}"
                )
            if largest is not None and math.prod(header.shape) > largest:
                raise FileError(f"{path}: {what} has shape {header.shape}; expected a single value")
            if header.size > max(_INFLATED_FREELY, _LARGEST_RATIO * member.compress_size):
                raise FileError(
                    f"{path}: {what} would be inflated from {member.compress_size} to {header.size} bytes, which is "
                    "refused; write it with numpy.savez, which does not compress"
                )
            with self._archive.open(member) as file:
                array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)  # type: ignore[no-untyped-call]
        return array

    def __enter__(self) -> NpzFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()


def _start(path: Path, file: IO[bytes]) -> bytes:
    start = file.read(_LONGEST_HEADER)
    if not start:
        raise FileError(f"{path}: is empty")
    if not start.startswith((_MAGIC, b"PK")):
        from gomin_client.files.opening import identify  # only for a wrong file: it loads the audio libraries

        content = identify(start)
        if content is not None:
            raise FileError(f"{path}: is {content.description}; expected a numpy file of numbers")
    return start


def _header(path: Path, start: bytes, what: str) -> Header:
    """The header in the first bytes of an array.

    Raises:
        FileError: there is none, or it claims objects.
    """
    stream = io.BytesIO(start)
    version = np.lib.format.read_magic(stream)  # type: ignore[no-untyped-call]
    # versions 2 and 3 differ from 1 in the width of the length, and 3 from 2 in the encoding of field names
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(stream)  # type: ignore[no-untyped-call]
    except MemoryError as error:  # Python's parser, about text that is nested too deeply
        raise FileError(f"{path}: is not a numpy file of numbers: {what} has a header that cannot be parsed") from error
    if dtype.hasobject:
        raise FileError(f"{path}: is not a numpy file of numbers: {what} has objects")
    if any(length < 0 for length in shape):
        raise FileError(f"{path}: is truncated or damaged: {what} has shape {shape}")
    if 0 in shape:
        raise FileError(f"{path}: its mel is empty: shape {shape}")
    return Header(shape, dtype, stream.tell() + math.prod(shape) * dtype.itemsize)


def _directory_size(path: Path) -> int:
    """Size of an archive's table of contents, in bytes, as zipfile will read it; 0 if there is none."""
    with path.open("rb") as file:
        length = file.seek(0, io.SEEK_END)
        file.seek(max(0, length - _END.size - (1 << 16)))
        tail = file.read()
        at = len(tail) - _END.size
        if at < 0 or not (tail[at:].startswith(b"PK\x05\x06") and tail.endswith(b"\0\0")):  # there is a comment
            at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) < at + _END.size:
            return 0
        size: int = _END.unpack_from(tail, at)[5]
        locator = at - _LOCATOR.size
        if locator >= _END_64.size and tail.startswith(b"PK\x06\x07", locator):
            # where the locator says, and in front of it, where zipfile has looked for long
            file.seek(min(_LOCATOR.unpack_from(tail, locator)[2], length))
            ends = [file.read(_END_64.size), tail[locator - _END_64.size : locator]]
            sizes = [
                _END_64.unpack(end)[8] for end in ends if len(end) == _END_64.size and end.startswith(b"PK\x06\x06")
            ]
            size = max(sizes, default=size)
        return size


@contextmanager
def _numpy_errors(path: Path) -> Iterator[None]:
    """Damaged files make numpy and zipfile raise errors of many kinds."""
    try:
        yield
    except (FileError, MemoryError):
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise FileError(f"{path}: is not a numpy file: {error}") from error
    except zipfile.BadZipFile as error:
        raise FileError(f"{path}: is truncated or damaged: {first_line(error)}") from error
    except Exception as error:
        raise FileError(f"{path}: is not a numpy file of numbers: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type if it has none; not too long."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
