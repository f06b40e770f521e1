"""Mel spectrogram files: .npz with settings, bare .npy, and GOMIN's .pt; the extensions are listed in `formats`.

Only .pt needs torch, which is imported for it alone.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.errors import FileError, UsageError
from gomin_client.files import formats
from gomin_client.files.atomic import atomic_write
from gomin_client.files.formats import Format
from gomin_client.files.npy import write_npy
from gomin_client.files.numpy_files import NpzFile, read_npy
from gomin_client.files.torch_files import read_pt
from gomin_client.mel.features import MelConfig
from gomin_client.mel.scales import MelReading, shape_hint, to_gomin

# The names that GOMIN's own files give to the array and its settings; .npz files use the same.
MEL_KEY = "melspec"
SETTINGS = ("n_mels", "sample_rate", "win_length", "hop_length")
_BLOCK_FRAMES = 4096


@dataclass(frozen=True)
class MelFile:
    """The content of a mel file.

    Attributes:
        path: the file.
        mel: (channels, n_mels, frames), real numbers of any type, as stored: for .npy files a memory map.
        config: the settings that the mel was made with; None if the file does not contain them.
    """

    path: Path
    mel: NDArray[Any]
    config: MelConfig | None

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The values, (channels, n_mels, some frames) each; only one block is held in memory.

        Raises:
            FileError: NaN or infinite values, or values beyond the range of float32.
        """
        for first in range(0, self.mel.shape[-1], _BLOCK_FRAMES):
            with np.errstate(over="ignore"):
                block = np.ascontiguousarray(self.mel[..., first : first + _BLOCK_FRAMES], dtype=np.float32)
            if not np.isfinite(block).all():
                raise FileError(f"{self.path}: its mel contains NaN or infinite values")
            yield block

    def converted(self, reading: MelReading, config: MelConfig) -> Iterator[NDArray[np.float32]]:
        """`blocks`, in GOMIN's scale.

        Args:
            reading: the scale that the file has.
            config: the model's settings.

        Raises:
            FileError: see `blocks`.
            ContractError: see `to_gomin`.
        """
        for block in self.blocks():
            yield to_gomin(block, reading.convention, config, stft_normalized=reading.stft_normalized)


def read(path: Path, *, transpose: bool = False) -> MelFile:
    """Open a mel file in the format of its extension. Its values are checked when `MelFile.blocks` reads them.

    Args:
        path: the file.
        transpose: the file contains (frames, n_mels).

    Raises:
        FileError: missing or damaged, or not a mel: other than 2 or 3 dimensions, no frames, not real numbers.
        UsageError: an unknown extension, or a .pt file if torch is not installed.
    """
    load = formats.loaded(_supported(formats.to_read(path), path, formats.readable(formats.MEL)).reader)
    if os.path.isdir(path):
        raise FileError(f"{path}: is a directory; expected a mel file")
    try:
        array, settings = load(path)
    except FileNotFoundError as error:
        raise FileError(f"{path}: no such file") from error
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    mel = _check_array(path, array, transpose)
    config = None if settings is None else _check_settings(path, settings)
    if config is not None and config.n_mels != mel.shape[1]:
        raise FileError(
            f"{path}: says n_mels {config.n_mels}, but its mel has {mel.shape[1]} bands"
            + shape_hint(mel.shape, config.n_mels)
        )
    return MelFile(path, mel, config)


def write(path: Path, mel: NDArray[np.float32], config: MelConfig) -> None:
    """Write a mel file in the format of its extension, atomically.

    Args:
        path: the file; its directory is created if it is missing.
        mel: (channels, n_mels, frames) float32. A single channel is written to .npy as (n_mels, frames).
        config: the settings that the mel was made with; .npy files do not store them.

    Raises:
        FileError: the file cannot be written.
        UsageError: an unknown extension, or a .pt file if torch is not installed.
    """
    write_blocks(path, [mel], config)


def write_blocks(path: Path, mels: Iterable[NDArray[np.float32]], config: MelConfig) -> None:
    """`write` for a mel spectrogram in blocks. Only .npy is written in constant memory.

    Args:
        path: see `write`.
        mels: (channels, n_mels, any number of frames) each; at least one block.
        config: see `write`.

    Raises:
        FileError, UsageError: see `write`. Errors that `mels` raises are passed on, and no file is left.
    """
    save = formats.loaded(_supported(formats.to_write(path), path, formats.writable(formats.MEL)).writer)
    with atomic_write(path) as part:
        save(part, mels, {name: getattr(config, name) for name in SETTINGS})


def load_npz(path: Path) -> tuple[Any, Mapping[str, Any] | None]:
    """Reader of .npz files: the array and its settings; see `read`."""
    with NpzFile(path) as file:
        if MEL_KEY not in file.names:
            names = ", ".join(name[:50] for name in sorted(file.names)[:4])
            raise FileError(f"{path}: has no array {MEL_KEY}; it has {names or 'none'}")
        settings = {name: file.read(name, largest=1) for name in SETTINGS if name in file.names}
        return file.read(MEL_KEY), settings


def save_npz(path: Path, mels: Iterable[NDArray[np.float32]], settings: Mapping[str, int]) -> None:
    """Writer of .npz files; see `write_blocks`."""
    mel = np.concatenate(list(mels), axis=-1)
    arrays = {MEL_KEY: mel, **{name: np.int64(value) for name, value in settings.items()}}
    # as numpy.savez does, which leaves its archive open if the disk is full, and complains about that later
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)  # type: ignore[no-untyped-call]


def load_npy(path: Path) -> tuple[Any, None]:
    """Reader of .npy files, which have no settings; the array is a memory map."""
    return read_npy(path), None


def save_npy(path: Path, mels: Iterable[NDArray[np.float32]], _settings: Mapping[str, int]) -> None:
    """Writer of .npy files, in constant memory; see `write_blocks`."""
    write_npy(path, mels)


def load_pt(path: Path) -> tuple[Any, Mapping[str, Any] | None]:
    """Reader of GOMIN's .pt files: a dict or a bare tensor. Code in the file is not run."""
    return read_pt(path, MEL_KEY)


def save_pt(path: Path, mels: Iterable[NDArray[np.float32]], settings: Mapping[str, int]) -> None:
    """Writer of GOMIN's .pt files; see `write_blocks`."""
    import torch

    mel = np.concatenate(list(mels), axis=-1)
    content = io.BytesIO()  # if the disk is full, torch raises errors of its own, which are not OSErrors
    torch.save({MEL_KEY: torch.from_numpy(np.ascontiguousarray(mel)), **settings}, content)
    path.write_bytes(content.getvalue())


def _check_array(path: Path, array: Any, transpose: bool) -> NDArray[Any]:
    """(channels, n_mels, frames) of real numbers; a memory map stays one."""
    if not isinstance(array, np.memmap):
        array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        raise FileError(f"{path}: its mel is of type {array.dtype}; expected real numbers")
    if array.ndim == 2:
        array = array[np.newaxis]
    if array.ndim != 3:
        raise FileError(f"{path}: its mel has shape {array.shape}; expected (n_mels, frames) or (channels, …, …)")
    if 0 in array.shape:
        raise FileError(f"{path}: its mel is empty: shape {array.shape}")
    mel: NDArray[Any] = array.transpose(0, 2, 1) if transpose else array
    return mel


def _check_settings(path: Path, settings: Mapping[str, Any]) -> MelConfig | None:
    """The settings in a file: all of them or, in a file that is not from GOMIN, none."""
    found = {name: settings[name] for name in SETTINGS if name in settings}
    if not found:
        return None
    values = {}
    for name in SETTINGS:
        if name not in found:
            raise FileError(f"{path}: has {', '.join(found)}, but not {name}; expected all of {', '.join(SETTINGS)}")
        try:
            number = found[name].item() if hasattr(found[name], "item") else found[name]
            values[name] = int(number)
            if values[name] != number or abs(values[name]) >= 1 << 63:
                raise ValueError
        except (TypeError, ValueError, OverflowError, RuntimeError):
            raise FileError(f"{path}: its {name} is {_shown(found[name])}; expected a whole number") from None
    try:
        return MelConfig(**values)
    except ValueError as error:
        raise FileError(f"{path}: its {error}") from error


def _shown(value: Any) -> str:
    """A value for an error message. Containers are not printed: a small file can nest them so that it never ends."""
    plain = isinstance(value, (str, float, np.generic)) or (isinstance(value, np.ndarray) and value.size <= 1)
    if plain or (isinstance(value, int) and abs(value) < 1 << 100):
        return repr(value)[:60]
    return f"a value of type {type(value).__name__}"


def _supported(found: Format | None, path: Path, extensions: Sequence[str]) -> Format:
    """The format, if it is a mel format and the package that it needs is installed."""
    if found is None or found.kind != formats.MEL:
        raise UsageError(f"{path}: not a mel file; known are {', '.join(extensions)}")
    found.require(path)
    return found
