"""Random sizes and values under AddressSanitizer: the kernels touch nothing beyond their arrays."""

import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tests.support import ROOT

SANITIZED = ["-std=c++17", "-O0", "-g", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover"]
SECONDS = "1"


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
