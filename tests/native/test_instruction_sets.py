"""AVX-512, AVX2 and NEON compute the same samples, bit for bit; NEON in an emulated processor."""

from __future__ import annotations

import shutil
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from gomin_client.native.library import LIBRARY_FILE
from tests.support import ROOT, tool

FLAGS = ["-std=c++17", "-O2", "-ffp-contract=off"]  # of the calls; the kernels have those of the library
ROUNDS, SEED = "10", "1"
ROUNDED_TWICE = "scalar"  # has no fused multiplication and addition
ARM_COMPILER = "aarch64-linux-gnu-g++"


def digests(builder: ModuleType, compiler: list[str], directory: Path, run: Sequence[str] = ()) -> dict[str, list[str]]:
    """Instruction set → kernels and what they computed."""
    objects = builder.compile_kernels(compiler, directory, builder._FLAGS)
    program = directory / "digests"
    source = ROOT / "tests" / "native" / "digests.cpp"
    builder.run([*compiler, *FLAGS, f"-I{ROOT / 'native'}", str(source), *map(str, objects), "-o", str(program)])
    result = subprocess.run([*run, program, ROUNDS, SEED], capture_output=True, text=True, check=True)
    found = defaultdict(list)
    for line in result.stdout.splitlines():
        name, _, computed = line.partition(" ")
        found[name].append(computed)
    return found


@pytest.fixture(scope="module")
def here(builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    try:
        compiler = builder.compiler()
    except builder.BuildError as error:
        pytest.skip(str(error))
    return digests(builder, compiler, tmp_path_factory.mktemp("here"))


def test_those_of_this_processor(here: dict[str, list[str]]) -> None:
    fused = {name: computed for name, computed in here.items() if name != ROUNDED_TWICE}
    if len(fused) < 2:
        pytest.skip("this processor has fewer than two of the instruction sets")
    first, *others = fused.values()
    assert all(computed == first for computed in others), fused
    assert len({line.split()[1] for line in first}) == len(first), "two kernels computed the same"
    assert here[ROUNDED_TWICE] != first


def test_neon(builder: ModuleType, here: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, emulator = [tool(ARM_COMPILER), "-static"], [tool("qemu-aarch64")]
    monkeypatch.setattr(builder.platform, "machine", lambda: "aarch64")

    found = digests(builder, compiler, tmp_path, emulator)

    assert found[ROUNDED_TWICE] == here[ROUNDED_TWICE]
    fused = [computed for name, computed in here.items() if name != ROUNDED_TWICE]
    if not fused:
        pytest.skip("this processor has neither AVX2 nor AVX-512")
    assert found["neon"] == fused[0]


def test_the_library_compiles_for_arm(builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", tool(ARM_COMPILER))
    monkeypatch.setattr(builder.platform, "machine", lambda: "aarch64")

    builder.build(tmp_path)

    reader = shutil.which("aarch64-linux-gnu-readelf")
    assert reader is not None, "it comes with the compiler"
    read = [reader, "--file-header", "--dynamic", "--wide", tmp_path / LIBRARY_FILE]
    described = subprocess.run(read, capture_output=True, text=True, check=True).stdout
    assert "AArch64" in described
    assert "libstdc++" not in described
