"""A server's private directory: copies of the backends, and links to model repositories.

Triton's Python backend starts its helper processes through bash, with the paths of the backend and of the model
unquoted: a space ends the path, and `$(command)` runs the command. So both must be paths without special characters. A
model repository that has another path is served through a symbolic link.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gomin_server import operators, predecessors
from gomin_server.installation import SEPARATORS, NativeServer, PipServer, SetupError

BACKENDS = Path(__file__).parent / "backends"
FALLBACKS = ("/tmp", "/var/tmp", "/dev/shm")
NOEXEC = "is mounted noexec, and the server starts its helper processes from there"
REASONS = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "is not a directory",
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is full: its quota is used up",
    errno.EROFS: "is read-only",
    errno.EACCES: "is not writable",
    errno.EPERM: "is not writable",
}
_SAFE = re.compile(r"[A-Za-z0-9_./+,@%:-]+")


@dataclass(frozen=True)
class Workspace:
    """What a server needs on disk.

    Attributes:
        token: Part of the names of all that belongs to this server; no other server has the same.
        arguments: tritonserver's options for the backends and the model repositories.
        environment: Environment variables that differ from those of this process.
    """

    token: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]


class _UnusableError(Exception):
    """A temporary directory cannot be used; the message says why."""


def shown(path: str) -> str:
    """A path for a message, on one line."""
    return path if path.isprintable() else repr(path)


def is_safe(path: str) -> bool:
    """Whether a path means itself to a shell, unquoted."""
    return _SAFE.fullmatch(path) is not None


def check_repositories(repositories: Sequence[str]) -> None:
    """Check that each model repository is a directory, with models whose names the server can handle.

    Raises:
        SetupError: One is not. The message names it.
    """
    for repository in repositories:
        try:
            models = sorted(entry.name for entry in os.scandir(repository) if entry.is_dir())
        except FileNotFoundError:
            raise SetupError(f"{shown(repository)}: no such directory; run gomin-export first") from None
        except OSError as error:
            raise SetupError(f"{shown(repository)}: cannot read the model repository: {error.strerror}") from None
        for model in models:
            if not is_safe(model):
                raise SetupError(
                    f"{shown(os.path.join(repository, model))}: the server cannot load a model from a directory of "
                    "this name; rename it, with letters, digits, '_', '-' and '.' only"
                )


@contextlib.contextmanager
def workspace(
    server: PipServer | NativeServer, repositories: Sequence[str], say: Callable[[str], None]
) -> Iterator[Workspace]:
    """Make what the server needs on disk; remove it at the end.

    Args:
        server: The installation. Only the pip server needs copies of backends.
        repositories: Paths of the model repositories.
        say: Receives a line if another temporary directory is used than the configured one, or if there is no operator
            library that can be used.

    Raises:
        SetupError: No temporary directory can be used.
    """
    token = secrets.token_hex(6)
    unsafe = [path for path in repositories if not is_safe(path)]
    library, problem = _usable_library(server)
    needing = operators.models_that_need_it(repositories) if library is None else []
    if needing and isinstance(server, PipServer) and not problem:
        say(f"this installation has no library of operators: {_without(needing)}")
    elif problem:
        say(f"{problem}; until then, {_without(needing)}")
    environment: dict[str, str] = {}
    if library is not None and isinstance(server, NativeServer):
        # config.pbtxt has the library's name; the directory is the last one that is searched
        searched = [os.environ.get("LD_LIBRARY_PATH", ""), str(library.directory)]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, searched))
    if isinstance(server, NativeServer) and not unsafe:
        yield Workspace(token, tuple(f"--model-repository={path}" for path in repositories), environment)
        return
    files = {} if library is None else library.files
    if problem:
        files = {operators.DESCRIPTION_FILE: json.dumps({"problem": problem}).encode()}
    directory, lock, changed = _make(token, server, files, say)
    try:
        arguments = [f"--backend-directory={directory}"] if isinstance(server, PipServer) else []
        for number, path in enumerate(repositories):
            if path in unsafe:
                link = directory / f"repository-{number}"
                link.symlink_to(os.path.abspath(path), target_is_directory=True)
                say(f"{shown(path)} is served through the link {link}: its path has special characters")
                path = str(link)
            arguments.append(f"--model-repository={path}")
        yield Workspace(token, tuple(arguments), {**environment, **changed})
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _usable_library(server: PipServer | NativeServer) -> tuple[operators.OperatorLibrary | None, str]:
    """The operator library, if the server can be given it; why one that is there cannot be used, or ""."""
    try:
        library = operators.find_library()
        if library is not None and isinstance(server, NativeServer) and set(SEPARATORS) & set(str(library.directory)):
            raise SetupError(
                f"{shown(str(library.directory))}: its path has ':' or ';', which LD_LIBRARY_PATH cannot contain: "
                "install into another directory"
            )
    except SetupError as problem:
        return None, str(problem)
    return library, ""


def _without(needing: Sequence[str]) -> str:
    """What does not work without the operator library, which these models need."""
    if not needing:
        return "models that were exported with --target native cannot be loaded"
    return (
        f"{', '.join(needing)} cannot be loaded, with --target native, and Triton ends, unless --exit-on-error=false "
        "lets it serve the other models"
    )


def _make(
    token: str, server: PipServer | NativeServer, files: Mapping[str, bytes], say: Callable[[str], None]
) -> tuple[Path, int, dict[str, str]]:
    """Make and lock the private directory, in the first temporary directory that can be used.

    `files` are put beside our onnxruntime backend, by name.
    """
    reasons: list[str] = []
    for name, parent in temporary_directories():
        directory = Path(parent) / predecessors.directory_name(token)
        lock = None
        try:
            if not is_safe(parent):
                raise _UnusableError("has special characters in its path, which the server cannot handle")
            directory.mkdir(mode=0o700)
            lock = predecessors.hold_lock(directory)
            if isinstance(server, PipServer):
                _copy_backends(server, files, directory)
        except (OSError, _UnusableError) as error:
            shutil.rmtree(directory, ignore_errors=True)
            if lock is not None:
                os.close(lock)
            known = REASONS.get(error.errno or 0, error.strerror) if isinstance(error, OSError) else error
            reasons.append(f"{name} {known}")
        else:
            if reasons:
                say(f"{'; '.join(reasons)}; using {parent} for temporary files instead")
            return directory, lock, {"TMPDIR": parent} if reasons else {}
    raise SetupError(
        f"no directory for temporary files can be used: {'; '.join(reasons)}. "
        "Set TMPDIR to a writable directory on a file system that is not mounted noexec"
    )


def temporary_directories() -> Iterator[tuple[str, str]]:
    """Name for messages and path of each temporary directory, in order of preference."""
    seen = set()
    for variable in ("TMPDIR", "TEMP", "TMP", ""):
        for path in FALLBACKS if not variable else (os.environ.get(variable, ""),):
            if path and (absolute := os.path.abspath(path)) not in seen:
                seen.add(absolute)
                yield (f"{variable}={shown(path)}" if variable else path), absolute


def _copy_backends(server: PipServer, files: Mapping[str, bytes], directory: Path) -> None:
    """Copy the Python backend and our Python-based onnxruntime backend, with these files, to a directory.

    Copies, because the server refuses symbolic links that lead out of the backend directory.

    Raises:
        _UnusableError: Programs cannot be started from the directory.
        OSError: A file cannot be written.
    """
    for source in (server.root / "backends" / "python", BACKENDS / "onnxruntime"):
        (directory / source.name).mkdir()
        for file in source.iterdir():
            if file.is_file():
                shutil.copyfile(file, directory / source.name / file.name)
    for name, content in files.items():
        (directory / "onnxruntime" / name).write_bytes(content)
    stub = directory / "python" / server.stub.name
    shutil.copyfile(server.stub, stub)
    stub.chmod(0o755)
    if not os.access(stub, os.X_OK):
        raise _UnusableError(NOEXEC)
