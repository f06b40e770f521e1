"""The library of the operators that models for `--target native` need, for ONNX Runtime on CPUs.

The build of this package compiles it where a C++ compiler is at hand, and puts two files into this directory: the
library, and a description with its operators and its SHA-256. In-process runs load the library from here alone, never
from a model repository: a repository must not be able to run code in a client.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gomin_client.errors import UsageError

LIBRARY_FILE = "libgomin_ops.so"  # gomin_server/operators.py reads both files too
DESCRIPTION_FILE = "libgomin_ops.json"
DIRECTORY = Path(__file__).parent
HOW_TO_GET = (  # on Linux; there is no library for other systems
    "install gomin-triton from its wheel for Linux on x86-64, or reinstall it where a C++ compiler (g++ or clang++) is "
    "found"
)
OTHER_TARGETS = "export the checkpoint with --target cpu (GAN) or any (diffusion)"
OTHER_RELEASE = "install the version of gomin-triton that exported the model, or export the checkpoint again"


@dataclass(frozen=True)
class OperatorLibrary:
    """The library of this installation.

    Attributes:
        path: the file.
        operators: domain and version of its operators, such as "gomin 1".
        sha256: of the file, in hexadecimal.
    """

    path: Path
    operators: str
    sha256: str

    def register(self, options: Any) -> None:
        """Make its operators known to sessions with these `onnxruntime.SessionOptions`.

        Raises:
            UsageError: the system cannot load it, such as one with another C library than that of the build.
        """
        try:
            options.register_custom_ops_library(str(self.path))
        except Exception as error:  # ONNX Runtime's classes of errors have no common base
            reason = " ".join(str(error).split())
            raise UsageError(
                f"{self.path}: this system cannot load the library: reinstall gomin-triton here, where a C++ compiler "
                f"(g++ or clang++) is found, or {OTHER_TARGETS} ({reason})"
            ) from error


def find_library() -> OperatorLibrary | None:
    """The library of this installation; None if it was installed without one.

    Raises:
        UsageError: the library is not the one that the description was written for.
    """
    path, description = DIRECTORY / LIBRARY_FILE, DIRECTORY / DESCRIPTION_FILE
    try:
        described = json.loads(description.read_text(encoding="utf-8"))
        operators, expected = str(described["operators"]), str(described["sha256"])
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be read: {error.strerror}: {HOW_TO_GET}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{description}: is damaged: {HOW_TO_GET}") from error
    if found != expected:
        raise UsageError(
            f"{path}: is not the library that this installation was built with, its SHA-256 is {found}: {HOW_TO_GET}"
        )
    return OperatorLibrary(path, operators, found)


def require_library(needed: str, what: str, if_other: str = OTHER_RELEASE) -> OperatorLibrary:
    """The library of this installation, with these operators.

    Args:
        needed: the operators, see `OperatorLibrary`.
        what: what needs them, for messages.
        if_other: what to do if the library has others.

    Raises:
        UsageError: there is none, it has other operators, or it is damaged.
    """
    library = find_library()
    if library is not None and library.operators == needed:
        return library
    if library is None and not sys.platform.startswith("linux"):
        raise UsageError(
            f"{what} needs the operators {needed}, and gomin-triton has no compiled operators for this system: "
            f"{OTHER_TARGETS}"
        )
    if library is None:
        raise UsageError(
            f"{what} needs the operators {needed}, and this installation of gomin-triton has no library of them: "
            f"{HOW_TO_GET}; or {OTHER_TARGETS}"
        )
    raise UsageError(
        f"{what} needs the operators {needed}, and the library of this installation of gomin-triton has "
        f"{library.operators}: {if_other}"
    )
