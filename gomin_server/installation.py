"""The tritonserver to run: one on PATH with NVIDIA's native onnxruntime backend, else the one that pip installed.

The pip server (nvidia-pytriton) has only the Python backend, and it has requirements of its own. They are all checked
here, before the server starts, because its own error messages do not name the cause.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import shutil
import sys
import sysconfig
from collections.abc import Container
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

MIN_GLIBC = (2, 35)
MAX_PYTHON = (3, 12)  # the newest that numpy before 2 has packages for
SEPARATORS = ":;"  # of the directories in LD_LIBRARY_PATH
NATIVE_BACKEND = Path("onnxruntime") / "libtriton_onnxruntime.so"


class SetupError(Exception):
    """No server can run on this machine; the message lists what is missing."""


@dataclass(frozen=True)
class NativeServer:
    """A tritonserver on PATH with the native onnxruntime backend, as in NVIDIA's container."""

    binary: Path
    backends: Path


@dataclass(frozen=True)
class PipServer:
    """The tritonserver of the nvidia-pytriton package.

    Attributes:
        root: Its directory, which contains bin/, backends/ and python_backend_stubs/.
        libraries: Directories for LD_LIBRARY_PATH.
    """

    root: Path
    libraries: tuple[Path, ...]

    @property
    def binary(self) -> Path:
        """The server's executable."""
        return self.root / "bin" / "tritonserver"

    @property
    def stub(self) -> Path:
        """The Python backend's helper process, built for this Python version."""
        return self.root / "python_backend_stubs" / _python_version() / "triton_python_backend_stub"


def find_server(backend_directory: str | None = None) -> NativeServer | PipServer:
    """Find the tritonserver to run.

    Args:
        backend_directory: Directory to search for the native backend instead of the usual ones.

    Raises:
        SetupError: Neither server can run here. The message gives the reasons.
    """
    native = _find_native(backend_directory)
    if native is not None:
        return native
    problems = _pip_server_problems()
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise SetupError(
            "no tritonserver with the native onnxruntime backend is on PATH (NVIDIA's container has it),\n"
            f"and the one that pip installs cannot run here:\n{listed}"
        )
    root = _pip_server_root()
    assert root is not None  # otherwise it is one of the problems
    return PipServer(root, (root.parents[1] / "nvidia_pytriton.libs", *_libpython_directory()))


def arguments_without_gpu(given: Container[str], devices: Path = Path("/dev")) -> list[str]:
    """Options of tritonserver that spare a machine without an NVIDIA GPU what it logs about the missing one.

    Args:
        given: options that the user chose.
        devices: directory of the device files.
    """
    if any(devices.glob("nvidia[0-9]*")):
        return []
    spared = {"--allow-gpu-metrics": "false", "--pinned-memory-pool-byte-size": "0"}
    return [f"{name}={value}" for name, value in spared.items() if name not in given]


def _find_native(backend_directory: str | None) -> NativeServer | None:
    found = shutil.which("tritonserver")
    if found is None:
        return None
    binary = Path(found).resolve()
    usual = [binary.parents[1] / "backends", Path("/opt/tritonserver/backends")]
    for backends in [Path(backend_directory)] if backend_directory else usual:
        if (backends / NATIVE_BACKEND).is_file():
            return NativeServer(binary, backends)
    return None


def _pip_server_root() -> Path | None:
    spec = importlib.util.find_spec("pytriton")  # not imported: that would load all of pytriton
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "tritonserver"


def _pip_server_problems() -> list[str]:
    """Every reason why the pip server cannot run here."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        return [f"it exists for Linux on x86-64 only, and this is {system} on {machine}"]
    numpy = _installed("numpy")
    has_old_numpy = numpy is not None and int(numpy.split(".")[0]) < 2
    if sys.version_info[:2] > MAX_PYTHON and not has_old_numpy:
        return [
            f"it needs numpy before 2, which has no packages for Python {_python_version()}: install "
            "'gomin-triton[server]' into an environment with Python 3.11 or 3.12"
        ]
    problems = []
    libc, libc_version = platform.libc_ver()
    if libc == "glibc" and tuple(int(part) for part in libc_version.split(".")[:2]) < MIN_GLIBC:
        problems.append(f"glibc is {libc_version}; it needs {'.'.join(map(str, MIN_GLIBC))} or newer")
    root = _pip_server_root()
    if root is None or not (root / "bin" / "tritonserver").is_file():
        problems.append("package nvidia-pytriton is missing: pip install 'gomin-triton[server]'")
    elif not PipServer(root, ()).stub.is_file():
        available = ", ".join(sorted(entry.name for entry in (root / "python_backend_stubs").iterdir()))
        problems.append(f"it has no Python backend for Python {_python_version()}; it has {available}")
    problems += [
        f"{path}: its path has ':' or ';', which LD_LIBRARY_PATH cannot contain: install into another directory"
        for path in (root, *_libpython_directory())
        if set(SEPARATORS) & set(str(path))
    ]
    if not _has_libpython():
        problems.append(
            f"{_libpython()} is missing: install your system's package of it (Debian, Ubuntu: libpython"
            f"{_python_version()}), or a Python built with --enable-shared"
        )
    if numpy is None:
        problems.append("package numpy is missing: pip install 'numpy<2'")
    elif not has_old_numpy:
        problems.append(
            f"numpy is {numpy}; with numpy 2 its Python backend returns empty outputs: pip install 'numpy<2'"
        )
    runtimes = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if not runtimes:
        problems.append("package onnxruntime-gpu is missing: pip install onnxruntime-gpu (it runs on the CPU too)")
    elif len(runtimes) == 2:
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed, and overwrite each other's files: "
            "uninstall both, then install onnxruntime-gpu"
        )
    if not (Path(sys.executable).parent / "python3").exists():
        problems.append(f"there is no python3 beside {sys.executable}: its Python backend starts that one")
    return problems


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _libpython() -> str:
    return f"libpython{_python_version()}.so.1.0"


def _libpython_directory() -> list[Path]:
    """This Python's own library directory, if libpython is in it."""
    directory = sysconfig.get_config_var("LIBDIR")
    return [Path(directory)] if directory and (Path(directory) / _libpython()).is_file() else []


def _has_libpython() -> bool:
    if _libpython_directory():
        return True
    try:
        ctypes.CDLL(_libpython())
    except OSError:
        return False
    return True


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
