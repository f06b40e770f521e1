"""Builds the custom-operator library, libgomin_ops.so, with the C++ compiler of this machine.

    python native/build.py

The library and a description of it are put into clients/gomin_client/native/. hook.py calls this for wheels.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent
PACKAGE = SOURCES.parent / "clients" / "gomin_client" / "native"
LIBRARY = "libgomin_ops.so"
DESCRIPTION = "libgomin_ops.json"
PARTS = ("library.cpp", "snakes.cpp", "filters.cpp", "interleave.cpp", "denoiser.cpp")  # beside kernels.cpp
OPERATORS = "gomin 1"  # ONNX domain and its version; the next version if an operator changes its meaning

# No contraction of a·b + c: a sample's value must not depend on how the compiler unrolls a loop.
_FLAGS = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-exceptions",
    "-fno-rtti",
    "-Wall",
    "-Wextra",
]
# Nothing of libstdc++ is called, so the library does not depend on its version.
_LINK_FLAGS = ["-shared", "-static-libgcc", f"-Wl,-soname,{LIBRARY}", "-Wl,--as-needed", "-Wl,-z,defs", "-s"]
# instruction sets by the processor's architecture: macro of kernels.cpp, and the compiler's flags
_INSTRUCTION_SETS = {
    "x86_64": (
        ("GOMIN_AVX512", "-mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma -mprefer-vector-width=512"),
        ("GOMIN_AVX2", "-mavx2 -mfma"),
    ),
    "aarch64": (("GOMIN_NEON", ""),),
}


class BuildError(Exception):
    """The library cannot be built here; the message says why."""


def compiler() -> list[str]:
    """The command of the C++ compiler: $CXX, or the first one in PATH.

    Raises:
        BuildError: there is none, or this is not Linux.
    """
    if not sys.platform.startswith("linux"):
        raise BuildError(f"the library is built on Linux only, not on {sys.platform}")
    wanted = os.environ.get("CXX")
    if wanted:
        return shlex.split(wanted)
    for name in ("g++", "clang++", "c++"):
        if found := shutil.which(name):
            return [found]
    raise BuildError("no C++ compiler (g++ or clang++) in PATH; install one, or name it with CXX")


def compile_kernels(command: list[str], directory: Path, flags: list[str]) -> list[Path]:
    """Compiles kernels.cpp for each instruction set of this architecture.

    Raises:
        BuildError: the compiler fails.
    """
    variants = (("GOMIN_SCALAR", ""), *_INSTRUCTION_SETS.get(platform.machine(), ()))
    objects = [directory / f"{macro.lower()}.o" for macro, _ in variants]
    for target, (macro, extra) in zip(objects, variants, strict=True):
        run([*command, *flags, f"-D{macro}", *extra.split(), "-c", str(SOURCES / "kernels.cpp"), "-o", str(target)])
    return objects


def run(command: list[str]) -> None:
    """Runs a compiler.

    Raises:
        BuildError: it fails.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise BuildError(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        what = f":\n{said[-2000:]}" if said else ", and printed nothing"
        raise BuildError(f"{shlex.join(command)} failed with status {done.returncode}{what}")


def build(package: Path = PACKAGE) -> list[Path]:
    """Builds the library and its description into `package`, and returns the two files.

    Raises:
        BuildError: there is no compiler, it fails, or a file cannot be written. `package` is then as before.
    """
    try:
        return _build(package)
    except OSError as error:
        raise BuildError(f"{error.filename or package}: cannot be written: {error.strerror or error}") from error


def _build(package: Path) -> list[Path]:
    command = compiler()
    with tempfile.TemporaryDirectory(prefix="gomin-build-") as temporary:
        directory = Path(temporary)
        objects = compile_kernels(command, directory, _FLAGS)
        library = directory / LIBRARY
        run(
            [
                *command,
                *_FLAGS,
                *_LINK_FLAGS,
                *(str(SOURCES / part) for part in PARTS),
                *map(str, objects),
                "-lm",
                "-o",
                str(library),
            ]
        )
        content = library.read_bytes()
    described = {"operators": OPERATORS, "sha256": hashlib.sha256(content).hexdigest()}
    package.mkdir(parents=True, exist_ok=True)
    # the description last: without it, or with another hash in it, a reader ignores the library
    contents = {package / LIBRARY: content, package / DESCRIPTION: (json.dumps(described) + "\n").encode()}
    partials = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in contents}
    try:
        for path, partial in partials.items():
            partial.write_bytes(contents[path])
        for path, partial in partials.items():
            partial.replace(path)
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
    return list(contents)


def remove(package: Path = PACKAGE) -> None:
    """Removes the library and its description from `package`, if they are there."""
    for name in (DESCRIPTION, LIBRARY):
        (package / name).unlink(missing_ok=True)


def main() -> None:
    """Builds, or ends with a message."""
    try:
        for path in build():
            print(path)
    except BuildError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
