"""Random sizes and values under AddressSanitizer: the kernels touch nothing beyond their arrays."""

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tests.support import ROOT

SANITIZED = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover"]
SECONDS = "1"


@pytest.fixture
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gomin_native_build", ROOT / "native" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_kernels_stay_within_their_arrays(builder: ModuleType, tmp_path: Path) -> None:
    try:
        command = builder.compiler()
    except builder.BuildError as error:
        pytest.skip(str(error))
    program = tmp_path / "guards"
    objects = builder.compile_kernels(command, tmp_path, SANITIZED)
    source = ROOT / "tests" / "native" / "guards.cpp"
    builder.run([*command, *SANITIZED, f"-I{ROOT / 'native'}", str(source), *map(str, objects), "-o", str(program)])

    result = subprocess.run([program, SECONDS, "1"], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    assert "scalar" in result.stdout
