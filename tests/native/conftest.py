"""The wheel of this tree, built with the machine's compiler, and the operator library in it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support import ROOT


def build_wheel(directory: Path, **environment: str) -> tuple[Path, str]:
    """Builds a wheel into a directory; returns it, and what the build printed."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    (wheel,) = directory.glob("*.whl")
    return wheel, result.stdout + result.stderr


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with the library, or a skip where there is no compiler."""
    path, printed = build_wheel(tmp_path_factory.mktemp("wheel"))
    if "no C++ compiler" in printed or not sys.platform.startswith("linux"):
        pytest.skip("no C++ compiler here")
    return path


@pytest.fixture(scope="session")
def library(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libgomin_ops.so from the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract("gomin_client/native/libgomin_ops.so", tmp_path_factory.mktemp("library")))
