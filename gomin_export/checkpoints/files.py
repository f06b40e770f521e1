"""Reads a checkpoint file without running code from it, and names what a wrong file is."""

from __future__ import annotations

import html
import json
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from gomin_export.errors import CheckpointError

_EXPECTED = "expected a state dict saved by torch.save or safetensors"
_NO_CHECKPOINT = f"is not a checkpoint, or a damaged one: {_EXPECTED}"
_HEAD = 4096  # bytes that are looked at
_CHUNK = 1 << 20
_LARGEST_RATIO = 10  # of an archive's contents to its size: weights hardly compress
_UNPACKED_FREELY = 1 << 20  # bytes of contents that any archive may have

# Python objects that trainers save beside the tensors: hyperparameters, metrics, states of random generators. They are
# never created: see `_Ignored`.
_IGNORED = re.compile(
    r"argparse\.Namespace|types\.SimpleNamespace|datetime\.\w+|pathlib\.\w+|pathlib\._local\.\w+|builtins\.frozenset"
    r"|_codecs\.encode|numpy\.(?:_?core\.multiarray\.(?:scalar|_reconstruct)|dtype|ndarray|dtypes\.\w+)"
)

# Dicts with other ways to read them, such as the AttrDict of a config: see `_PlainDict`.
_DICTS = re.compile(r"[\w.]+\.\w*Dict")

# first bytes → what such a file is, and what to do about it
_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "is compressed by gzip: unpack it (gunzip, tar -xzf) and give the checkpoint in it"),
    (b"\xfd7zXZ\0", "is compressed by xz: unpack it (unxz, tar -xJf) and give the checkpoint in it"),
    (b"BZh", "is compressed by bzip2: unpack it (bunzip2, tar -xjf) and give the checkpoint in it"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd: unpack it (unzstd) and give the checkpoint in it"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive: unpack it and give the checkpoint in it"),
    (b"Rar!", "is a RAR archive: unpack it and give the checkpoint in it"),
    (b"\x89HDF", f"is an HDF5 file, as Keras writes it; {_EXPECTED}"),
    (b"\x93NUMPY", f"is a NumPy array; {_EXPECTED}"),
    (b"GGUF", f"is a GGUF file, as llama.cpp reads it; {_EXPECTED}"),
    (b"RIFF", f"is a sound file (RIFF); {_EXPECTED}"),
    (b"fLaC", f"is a sound file (FLAC); {_EXPECTED}"),
    (b"OggS", f"is a sound file (Ogg); {_EXPECTED}"),
    (b"ID3", f"is a sound file (MP3); {_EXPECTED}"),
    (b"\x89PNG", f"is a picture (PNG); {_EXPECTED}"),
    (b"\xff\xd8\xff", f"is a picture (JPEG); {_EXPECTED}"),
    (b"%PDF", f"is a PDF document; {_EXPECTED}"),
    (b"ftrt", f"is a TensorRT engine; {_EXPECTED}"),
    (b"ptrt", f"is a TensorRT engine; {_EXPECTED}"),
    (b"\x7fELF", f"is a program or library (ELF); {_EXPECTED}"),
    (b"SQLite format 3", f"is an SQLite database; {_EXPECTED}"),
    (b"PACK", f"is a Git pack file; {_EXPECTED}"),
)


def load_file(path: Path) -> Any:
    """The unpickled file, tensors and plain containers only; or the dict of a safetensors file.

    Raises:
        CheckpointError: the file cannot be read safely, or is not a checkpoint.
    """
    try:
        require_file(path)
        if _is_safetensors(path):
            from safetensors.torch import load_file as load_safetensors

            return load_safetensors(path, device="cpu")
        if zipfile.is_zipfile(path):
            _check_archive(path)
        return _load_pickle(path)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch, pickle, zipfile and safetensors each raise their own; all mean the same here
        raise CheckpointError(f"{path}: {_diagnose(path, error)}") from error


class _Ignored:
    """A stand-in for a Python object beside the tensors: it accepts the object's arguments and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Ignored:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


class _PlainDict:
    """A stand-in for a subclass of dict, whose items are kept in an ordinary dict."""

    def __new__(cls, *_: Any, **__: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()  # the kind of dict that torch's safe unpickler fills


def _stand_in(name: str) -> type | None:
    """The class that takes the place of a Python class of this name, which is not imported; None for most classes."""
    if _IGNORED.fullmatch(name):
        return _Ignored
    return _PlainDict if _DICTS.fullmatch(name) else None


def _load_pickle(path: Path) -> Any:
    """The contents of a file of torch.save, with `_stand_in`s for objects that trainers add to the tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickle protocols; a file that cannot be read is an error of the caller
        try:
            return _load_tensors(path)
        except pickle.UnpicklingError:
            if not zipfile.is_zipfile(path):
                raise
            refused = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            known: list[Any] = [(stand_in, name) for name in refused if (stand_in := _stand_in(name)) is not None]
            if not refused or len(known) < len(refused):
                raise
        with torch.serialization.safe_globals(known):
            return _load_tensors(path)


def _load_tensors(path: Path) -> Any:
    with path.open("rb") as file:  # without its name: torch takes a file for safetensors by its extension alone
        return torch.load(file, map_location="cpu", weights_only=True)


def require_file(path: Path) -> None:
    """Refuse a path that is not a regular file.

    Raises:
        CheckpointError: there is nothing, a directory, a pipe or the like.
        OSError: it cannot be looked at.
    """
    if path.is_dir():
        raise CheckpointError(f"{path}: {_directory(path)}")
    if not path.exists():
        raise CheckpointError(f"{path}: no such file")
    if not path.is_file():
        raise CheckpointError(f"{path}: is not a regular file; a checkpoint cannot be read from a pipe")


def _is_safetensors(path: Path) -> bool:
    """A safetensors file begins with the length of its JSON header, 8 bytes, then "{"."""
    head = _head(path, 9)
    return head[8:] == b"{" and not head.startswith(b"PK") and int.from_bytes(head[:8], "little") < 1 << 40


def _check_archive(path: Path) -> None:
    """Refuse a zip archive that torch.load should not open.

    Raises:
        CheckpointError: it is something else, or takes much more memory than its size.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = [member.filename for member in members]
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(_UNPACKED_FREELY, _LARGEST_RATIO * path.stat().st_size):
        raise CheckpointError(
            f"{path}: is refused: an archive of {path.stat().st_size} bytes that unpacks to {unpacked} bytes; "
            "torch.save does not compress"
        )
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            f"{path}: is a TorchScript archive, which contains code; {_EXPECTED}: "
            "torch.save(torch.jit.load(…).state_dict(), …) writes one, if you trust its source"
        )
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        _check_sums(path)
        return
    if any(name.endswith((".pt", ".pth", ".ckpt", ".safetensors", ".bin")) for name in names):
        checkpoint = next(name for name in names if name.endswith((".pt", ".pth", ".ckpt", ".safetensors", ".bin")))
        raise CheckpointError(f"{path}: is a zip archive: unpack it and give the checkpoint in it, {checkpoint}")
    if names and all(name.endswith(".npy") for name in names):
        raise CheckpointError(f"{path}: is a NumPy archive (.npz); {_EXPECTED}")
    raise CheckpointError(f"{path}: is a zip archive of {len(names)} files, but not a checkpoint; {_EXPECTED}")


def _check_sums(path: Path) -> None:
    """Refuse an archive in which bytes have changed: torch does not look at the checksums.

    Those that were left out (`torch.serialization.set_crc32_options`) are 0.

    Raises:
        CheckpointError: one is wrong.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.CRC == 0:
                continue
            try:
                with archive.open(member) as content:
                    while content.read(_CHUNK):
                        pass
            except zipfile.BadZipFile as error:
                raise CheckpointError(
                    f"{path}: is damaged: the contents of {member.filename} in its archive do not have their checksum; "
                    "copy or download it again"
                ) from error


def _directory(path: Path) -> str:
    """A description of a directory that was given as a checkpoint."""
    if (path / ".metadata").is_file():
        return (
            "is a checkpoint of torch.distributed: convert it into one file, "
            "python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIRECTORY FILE"
        )
    if any(path.glob("data.pkl")) or any(path.glob("*/data.pkl")):
        return "is the unpacked archive of a checkpoint; give the archive itself"
    files = sorted(
        file.name for file in path.iterdir() if file.suffix in (".pt", ".pth", ".ckpt", ".safetensors", ".bin")
    )
    return "is a directory; expected a checkpoint file" + (f", such as {path / files[0]}" if files else "")


def _diagnose(path: Path, error: Exception) -> str:
    """The reason why a file could not be loaded, for the error message."""
    if path.stat().st_size == 0:
        return f"is empty; {_EXPECTED}"
    named = _name_of(path)
    if named is not None:
        return named
    message = str(error)
    refused = re.search(r"GLOBAL ([\w.]+)", message)
    if "weights_only" in message.lower() or "weights only" in message.lower():
        if refused:
            return (
                f"refused: it contains the Python object {refused[1]}, and loading that could run code; "
                "expected a state dict, as torch.save(model.state_dict(), …) writes it"
            )
        return _NO_CHECKPOINT
    if _head(path, 4) == b"PK\x03\x04" and not zipfile.is_zipfile(path):
        return "is truncated or damaged: its archive cannot be read to the end; copy or download it again"
    if _is_safetensors(path) or zipfile.is_zipfile(path):
        if isinstance(error, (LookupError, TypeError, ValueError, AttributeError)):  # of an unpickler that lost its way
            return f"is truncated or damaged: its list of tensors is not valid ({type(error).__name__})"
        return f"is truncated or damaged: {message.splitlines()[0] if message else type(error).__name__}"
    return _NO_CHECKPOINT


def _name_of(path: Path) -> str | None:
    """A description of a file that is not a checkpoint; None if it is unknown."""
    head = _head(path, _HEAD)
    for start, kind in _KINDS:
        if head.startswith(start):
            return kind
    if head[257:262] == b"ustar":
        return "is a tar archive: unpack it (tar -xf) and give the checkpoint in it"
    if head[4:8] == b"TFL3":
        return f"is a TensorFlow Lite model; {_EXPECTED}"
    if head[4:6] == b"ET":
        return f"is an ExecuTorch program; {_EXPECTED}"
    if _is_onnx(path, head):
        return f"is an ONNX model, as an export makes it; the checkpoint that it was made from is needed: {_EXPECTED}"
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    return _text(text, path) if _is_text(head) else None


def _text(text: str, path: Path) -> str | None:
    """A description of a text file that was given as a checkpoint."""
    start = text[:200].lower()
    if start.startswith("version https://git-lfs.github.com/spec"):
        size = re.search(r"^size (\d+)$", text, re.MULTILINE)
        of = f" of {size[1]} bytes" if size else ""
        return f"is a Git LFS pointer to a file{of}, not the file: run git lfs pull in its repository"
    if "/annex/objects/" in start:
        return "is a git-annex pointer, not the file: run git annex get in its repository"
    if start.startswith(("<?xml", "<error")) and "<html" not in start:
        if "<net " in start:
            return f"is an OpenVINO model; {_EXPECTED}"
        code = re.search(r"<Code>([^<]+)</Code>", text)
        error = f" that reports the error {code[1]}" if code else ""
        return f"is an XML document{error}, not a checkpoint: download it again"
    if start.startswith("<"):
        return _web_page(text)
    if start.startswith(("{", "[")):
        return _json(path)
    line = text.partition("\n")[0].rstrip()[:60]
    return f'is a text file that begins with "{line}"; it is not a checkpoint: {_EXPECTED}'


def _web_page(text: str) -> str:
    found = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    title = " ".join(html.unescape(found[1]).split())[:80] if found else ""
    named = f' ("{title}")' if title else ""
    if "google drive" in text.lower() or "drive.google" in text.lower():
        return (
            f"is a web page of Google Drive{named}, not a checkpoint: large files need a confirmation there; download "
            "it in a browser, or with gdown"
        )
    return f"is a web page{named}, not a checkpoint: download the file itself (a link to the raw file)"


def _json(path: Path) -> str:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and "weight_map" in content:
        return "is the index of a sharded checkpoint, not a checkpoint: expected one file with all tensors"
    if isinstance(content, dict) and "error" in content:
        return f"is a JSON reply with the error {str(content['error'])[:80]!r}, not a checkpoint: download it again"
    return f"is a JSON file, not a checkpoint; {_EXPECTED}"


def _is_text(head: bytes) -> bool:
    return b"\0" not in head and sum(byte < 32 and byte not in (9, 10, 13) for byte in head) == 0


def _is_onnx(path: Path, head: bytes) -> bool:
    """An ONNX model is a protobuf message without magic bytes: it begins with a small IR version."""
    if head[:1] != b"\x08" or len(head) < 3 or not 0 < head[1] < 32:
        return False
    import onnx

    try:
        model = onnx.load_model(path, load_external_data=False)
    except Exception:  # protobuf's own errors have no common public base
        return False
    return bool(model.graph.node)


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)
