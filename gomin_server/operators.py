"""The library of gomin's own operators, for models exported with `--target native`.

It is taken from the installed package `gomin_client`, which is not imported, and never from a model repository.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gomin_server.installation import SetupError

LIBRARY_FILE = "libgomin_ops.so"  # gomin_client/native reads both files too
DESCRIPTION_FILE = "libgomin_ops.json"


@dataclass(frozen=True)
class OperatorLibrary:
    """The library of this installation.

    Attributes:
        directory: Where it is.
        files: Its file and that of its description, with their contents.
    """

    directory: Path
    files: dict[str, bytes]


def find_library() -> OperatorLibrary | None:
    """The library of this installation; None if it was installed without one.

    Raises:
        SetupError: The library is not the one that this installation was built with.
    """
    spec = importlib.util.find_spec("gomin_client")
    if spec is None or spec.origin is None:
        return None
    directory = Path(spec.origin).parent / "native"
    try:
        files = {name: (directory / name).read_bytes() for name in (LIBRARY_FILE, DESCRIPTION_FILE)}
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SetupError(f"{error.filename}: cannot be read: {error.strerror}") from None
    found = hashlib.sha256(files[LIBRARY_FILE]).hexdigest()
    try:
        is_expected = json.loads(files[DESCRIPTION_FILE])["sha256"] == found
    except (ValueError, LookupError, TypeError):
        is_expected = False
    if not is_expected:
        raise SetupError(
            f"{directory / LIBRARY_FILE}: is not the library that this installation was built with: "
            "reinstall gomin-triton"
        )
    return OperatorLibrary(directory, files)


def models_that_need_it(repositories: Sequence[str]) -> list[str]:
    """Names of the models of which a version needs the library, by their config.pbtxt."""
    configs = sorted(config for path in repositories for config in Path(path).glob("*/config.pbtxt"))
    return [config.parent.name for config in configs if _needs_it(config)]


def _needs_it(config: Path) -> bool:
    try:
        return b'"gomin.operators.' in config.read_bytes()
    except OSError:  # Triton reports it
        return False
