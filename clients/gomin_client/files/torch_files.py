"""Reading the mels in .pt files: nothing in them is run, and no claim of a size is believed."""

from __future__ import annotations

import pickletools
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.errors import FileError
from gomin_client.files.numpy_files import first_line

if TYPE_CHECKING:
    from torch import Tensor

_UNPACKED_FREELY = 1 << 20  # bytes; torch.save does not compress
_PICKLES_OF_THE_OLD_FORMAT = 5  # one after the other: a magic number, a version, the system, the object, storage keys
_SHARED_TUPLES = 20


def read_pt(path: Path, key: str) -> tuple[NDArray[Any], Mapping[str, Any] | None]:
    """A tensor in a .pt file, and the other entries of the dict that it is in.

    Args:
        path: the file: a dict, or a bare tensor.
        key: the name of the tensor in a dict.

    Raises:
        FileError: another file, one that would run code, or a tensor that is not in the file with all its values.
        OSError: it cannot be read.
    """
    import torch

    if path.stat().st_size == 0:
        raise FileError(f"{path}: is empty")
    _check_archive(path)
    _check_pickles(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; files that cannot be read are errors below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch, pickle and zipfile each raise their own
        raise FileError(
            f"{path}: is not a mel file that can be loaded safely (tensors and plain values only), or is damaged"
        ) from error
    settings: Mapping[str, Any] | None = None
    if isinstance(content, dict):
        if key not in content:
            names = ", ".join(name[:50] for name in list(content)[:4] if isinstance(name, str))
            raise FileError(f"{path}: has no entry {key}; it has {names or 'none'}")
        content, settings = content[key], content
    if not isinstance(content, torch.Tensor):
        raise FileError(f"{path}: its mel is a {type(content).__name__}; expected a tensor")
    _check_values(path, content)
    try:
        return np.asarray(content.detach().float().numpy()), settings
    except (RuntimeError, TypeError) as error:
        raise FileError(f"{path}: its mel is not a plain tensor of numbers: {first_line(error)}") from error


def _check_archive(path: Path) -> None:
    """Refuse an archive that unpacks to much more than its size, before torch does that.

    Raises:
        FileError: it does, or it is damaged.
    """
    try:
        if not zipfile.is_zipfile(path):  # the older format of torch.save, which is not an archive
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as error:
        raise FileError(f"{path}: is truncated or damaged: {first_line(error)}") from error
    stored = path.stat().st_size
    if unpacked > max(_UNPACKED_FREELY, 2 * stored):
        raise FileError(
            f"{path}: is an archive of {stored} bytes that unpacks to {unpacked} bytes, which is refused; torch.save "
            "does not compress"
        )


def _check_pickles(path: Path) -> None:
    """Refuse tuples of tuples that are shared: to hash one of depth n takes 2ⁿ steps, which no signal interrupts.

    Raises:
        FileError: the file has them. What cannot be parsed is left to torch.
    """
    shared = 0
    with suppress(Exception), ExitStack() as stack:  # damaged files make zipfile and pickletools raise many errors
        if zipfile.is_zipfile(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            streams = [stack.enter_context(archive.open(name)) for name in names]
        else:
            file = stack.enter_context(path.open("rb"))
            streams = [file] * _PICKLES_OF_THE_OLD_FORMAT
        for stream in streams:
            for _ in _shared_tuples(stream):
                shared += 1
    if shared > _SHARED_TUPLES:
        raise FileError(f"{path}: shares {shared} tuples, which is refused: to load them might never end")


def _shared_tuples(stream: IO[bytes]) -> Iterator[object]:
    """The references of a pickle to tuples that it has made before."""
    tuples: set[object] = set()
    on_top = False  # of the stack, a tuple
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("BINPUT", "LONG_BINPUT"):
            if on_top:
                tuples.add(argument)
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            on_top = argument in tuples
            if on_top:
                yield argument
        else:
            on_top = opcode.name.startswith("TUPLE")


def _check_values(path: Path, tensor: Tensor) -> None:
    """Refuse a tensor whose values are not all in the file, before memory of its size is allocated.

    Raises:
        FileError: names what it is.
    """
    import torch

    if tensor.is_meta:
        raise FileError(f"{path}: its mel has no values: it was saved on the meta device")
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        raise FileError(f"{path}: its mel is not a plain tensor of numbers; save a dense one")
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise FileError(f"{path}: its mel is of type {tensor.dtype}; expected real numbers")
    claimed, stored = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if claimed > stored:
        raise FileError(
            f"{path}: its mel has shape {tuple(tensor.shape)}, which takes {claimed} bytes, and the file has {stored} "
            "bytes of it; save tensor.contiguous()"
        )
