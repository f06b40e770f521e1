"""The library of our own operators: only the installed one is loaded, and what is said where it does not suit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gomin_client.cli.main import app
from gomin_client.errors import UsageError
from gomin_client.native import library
from gomin_client.native.library import OperatorLibrary, find_library, require_library
from gomin_client.transports.local import LocalTransport
from tests.libraries import evil_library, needing
from tests.support import EXAMPLES, assert_fails, invoke

MEL = {"mel": np.full((1, 128, 3), 0.5, np.float32)}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory where the library of this installation is, empty."""
    home = tmp_path / "installed"
    home.mkdir()
    monkeypatch.setattr(library, "DIRECTORY", home)
    return home


def put(home: Path, operators: str = "gomin 1", content: bytes = b"library", digest: str = "") -> OperatorLibrary:
    found = digest or library.hashlib.sha256(content).hexdigest()
    (home / "libgomin_ops.so").write_bytes(content)
    (home / "libgomin_ops.json").write_text(json.dumps({"operators": operators, "sha256": found}))
    return OperatorLibrary(home / "libgomin_ops.so", operators, found)


def test_the_library_is_the_described_one(installed: Path) -> None:
    assert find_library() is None

    expected = put(installed)
    assert find_library() == require_library("gomin 1", "x") == expected

    (installed / "libgomin_ops.so").write_bytes(b"another")
    with pytest.raises(UsageError, match=r"libgomin_ops\.so: is not the library that this installation was built with"):
        find_library()
    for text in ("{", "[]", '{"operators": "gomin 1"}'):
        (installed / "libgomin_ops.json").write_text(text)
        with pytest.raises(UsageError, match=r"libgomin_ops\.json: is damaged: .*C\+\+ compiler"):
            find_library()
    (installed / "libgomin_ops.so").unlink()
    (installed / "libgomin_ops.so").mkdir()
    (installed / "libgomin_ops.json").write_text(json.dumps({"operators": "gomin 1", "sha256": "0"}))
    with pytest.raises(UsageError, match=r"libgomin_ops\.so: cannot be read: Is a directory: .*C\+\+ compiler"):
        find_library()


def test_what_is_said_without_the_library_or_with_another_version(
    native_repository: Path, installed: Path, tmp_path: Path
) -> None:
    """Once, before the first of several files."""
    arguments = ("reconstruct", *EXAMPLES[:2], "--url", f"local:{native_repository}", "-o", tmp_path / "out")

    words = "model.onnx: needs the operators gomin 1, and this installation of gomin-triton has no library of them"
    assert_fails(
        invoke(app, *arguments),
        2,
        words,
        "C++ compiler",
        "or export the checkpoint with --target cpu (GAN) or any (diffusion)",
    )

    assert put(installed).operators == "gomin 1"  # as described, and of another C library, for instance
    words = "libgomin_ops.so: this system cannot load the library: reinstall gomin-triton here, where"
    assert_fails(
        invoke(app, *arguments), 2, words, "or export the checkpoint with --target cpu (GAN) or any (diffusion)"
    )

    put(installed, "gomin 2")
    words = "needs the operators gomin 1, and the library of this installation of gomin-triton has gomin 2: install the"
    assert_fails(invoke(app, *arguments), 2, words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_what_is_said_on_systems_without_operators(
    installed: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(UsageError, match=r"no compiled operators for this system: export .* or any \(diffusion\)$"):
        require_library("gomin 1", "x")


def test_no_library_of_a_repository_is_loaded(native_repository: Path, tmp_path: Path) -> None:
    """A library that leaves a mark when it is loaded: in the place of ours, and named in config.pbtxt."""
    evil, mark = evil_library(tmp_path)
    home = Path(shutil.copytree(native_repository, tmp_path / "models"))
    shutil.copyfile(evil, home / "gomin_gan/1/libgomin_ops.so")
    needing(home, library=str(evil))
    with LocalTransport(native_repository) as intact, LocalTransport(home) as transport:
        expected = intact.infer("gomin_gan", 1, MEL)["audio"]
        np.testing.assert_array_equal(transport.infer("gomin_gan", 1, MEL)["audio"], expected)
    assert not mark.exists()

    load = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
    subprocess.run([sys.executable, "-c", load, evil], check=True)
    assert mark.exists()


def test_info_shows_what_a_version_needs(native_repository: Path, operator_library: OperatorLibrary) -> None:
    result = invoke(app, "info", "--url", f"local:{native_repository}")
    described = json.loads(invoke(app, "info", "--url", f"local:{native_repository}", "--json").stdout)

    assert result.stdout.count("    operators: ") == 1
    assert f"    operators: gomin 1; library sha256 {operator_library.sha256}\n" in result.stdout
    needs = {model["name"]: model["versions"][0]["operators"] for model in described["models"]}
    assert needs == {"gomin_gan": "gomin 1", "gomin_mel": None, "gomin_reconstruct": None}
