"""The npm package onnxruntime-web, which runs models in browsers.

Its files are too large for this package. They are taken from the package that `npm` fetches, or from one that is there
already, and each must be the very file that was tested.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from gomin_client.errors import FileError, UsageError
from gomin_client.files.atomic import temporary_directory, temporary_file_errors

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
CPU = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")  # module and binary
GPU = ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
SHA256 = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.bundle.min.mjs": "0730816731ce2cdfb06f273da065d4a1c7091eb9d1756a83b2916c8a89d015e2",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}
# The package itself has no licence text, only its name.
LICENSE = f"""onnxruntime-web {VERSION}, unchanged files of the npm package of that name.

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
_ADVICE = f"fetch it elsewhere with `npm pack {PACKAGE}@{VERSION}`, and name the file with --onnxruntime-web"
_NPM_TIMEOUT_S = 1800.0


def read(names: Iterable[str], source: Path | None = None) -> dict[str, bytes]:
    """Files of the package.

    Args:
        names: of files in its folder dist.
        source: the package, as a .tgz file or unpacked; None to fetch it with npm.

    Raises:
        UsageError: there is no such package, or it is another version; or npm is missing.
        FileError: npm could not fetch it, or a file cannot be read.
    """
    if source is not None:
        return {name: _checked(name, content, source) for name, content in _contents(names, source).items()}
    with temporary_directory() as folder:
        packed = _fetched(folder)
        return {name: _checked(name, content, packed) for name, content in _contents(names, packed).items()}


def _fetched(folder: Path) -> Path:
    """The package as a file, from npm's registry or its cache."""
    npm = shutil.which("npm")
    if npm is None:
        raise UsageError(f"pages without a server need the npm package {PACKAGE}, but npm is not installed: {_ADVICE}")
    options = ["--ignore-scripts", "--prefer-offline", "--loglevel=error", "--no-update-notifier"]
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", *options]
    with temporary_file_errors():
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_NPM_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise FileError(f"{PACKAGE}: npm did not fetch it within {_NPM_TIMEOUT_S:.0f} s: {_ADVICE}") from error
    found = sorted(folder.glob("*.tgz"))
    if done.returncode != 0 or len(found) != 1:
        reason = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise FileError(f"{PACKAGE}: npm could not fetch it: {reason}: {_ADVICE}")
    return found[0]


def _contents(names: Iterable[str], source: Path) -> dict[str, bytes]:
    if source.is_dir():
        return {name: _file(source, name) for name in names}
    try:
        with tarfile.open(source, "r:*") as package:
            return {name: _member(package, source, name) for name in names}
    except FileNotFoundError as error:
        raise UsageError(f"{source}: no such file or folder; expected the npm package {PACKAGE} {VERSION}") from error
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UsageError(f"{source}: cannot be read as the npm package {PACKAGE}, a .tgz file: {error}") from error


def _file(source: Path, name: str) -> bytes:
    path = source / "dist" / name
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(
            f"{source}: has no dist/{name}; expected the npm package {PACKAGE} {VERSION}, unpacked"
        ) from error
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error


def _member(package: tarfile.TarFile, source: Path, name: str) -> bytes:
    try:
        member = package.extractfile(f"package/dist/{name}")
    except KeyError:
        member = None
    if member is None:
        raise UsageError(f"{source}: has no package/dist/{name}; expected the npm package {PACKAGE} {VERSION}")
    return member.read()


def _checked(name: str, content: bytes, source: Path) -> bytes:
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise UsageError(f"{source}: its {name} is not that of {PACKAGE} {VERSION}, the version that was tested")
    return content
