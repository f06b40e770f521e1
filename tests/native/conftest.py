"""The operator library of the wheel, built with the machine's compiler."""

import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def wheel_with_library(wheel: Path) -> Path:
    """The wheel of the source tree, or a skip where there is no compiler."""
    if wheel.stem.endswith("-any") or not sys.platform.startswith("linux"):
        pytest.skip("no C++ compiler here")
    return wheel


@pytest.fixture(scope="session")
def library(wheel_with_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libgomin_ops.so from the wheel."""
    with zipfile.ZipFile(wheel_with_library) as archive:
        return Path(archive.extract("gomin_client/native/libgomin_ops.so", tmp_path_factory.mktemp("library")))
