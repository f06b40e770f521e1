"""The operator library of the wheel, built with the machine's compiler."""

import importlib.util
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.support import ROOT


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


@pytest.fixture(scope="session")
def builder() -> ModuleType:
    """native/build.py."""
    spec = importlib.util.spec_from_file_location("gomin_native_build", ROOT / "native" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
