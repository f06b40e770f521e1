"""Wheels: with the library where there is a compiler, pure Python and complete otherwise."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.pythons import build_wheel
from tests.support import ROOT

LIBRARY = "gomin_client/native/libgomin_ops.so"
DESCRIPTION = "gomin_client/native/libgomin_ops.json"


def test_a_wheel_has_the_library_its_description_and_the_platform(wheel_with_library: Path) -> None:
    with zipfile.ZipFile(wheel_with_library) as archive:
        description = json.loads(archive.read(DESCRIPTION))
        digest = hashlib.sha256(archive.read(LIBRARY)).hexdigest()

    assert description == {"operators": "gomin 1", "sha256": digest}
    assert wheel_with_library.stem.endswith(f"-py3-none-linux_{os.uname().machine}")


def test_the_library_needs_the_c_library_alone(library: Path) -> None:
    """Not libstdc++, and no symbol that is newer than the C library of NVIDIA's container."""
    symbols = subprocess.run(["nm", "-D", library], capture_output=True, text=True, check=True).stdout
    defined = [line.split()[-1] for line in symbols.splitlines() if " T " in line]
    versions = {line.rpartition("@GLIBC_")[2] for line in symbols.splitlines() if "@" in line}

    assert defined == ["RegisterCustomOps"]
    assert "GLIBCXX" not in symbols
    assert max(tuple(map(int, version.split("."))) for version in versions) <= (2, 35)


def test_a_source_distribution_has_all_that_a_build_needs(builder: ModuleType, tmp_path: Path) -> None:
    """And a build compiles every file: a part that it left out would leave an operator undefined."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)

    with tarfile.open(*tmp_path.iterdir()) as archive:
        packed = {Path(name).name for name in archive.getnames() if Path(name).parts[1:2] == ("native",)}
    sources = {path.name for path in (ROOT / "native").iterdir() if path.is_file()}

    assert sources <= packed
    assert {"kernels.cpp", *builder.PARTS} == {name for name in sources if name.endswith(".cpp")}


def test_without_a_compiler_the_wheel_is_pure_and_works(tmp_path: Path) -> None:
    nothing = tmp_path / "bin"
    nothing.mkdir()

    wheel, printed = build_wheel(tmp_path / "dist", PATH=str(nothing), CXX="")

    assert "no C++ compiler (g++ or clang++) in PATH" in printed
    assert wheel.stem.endswith("-py3-none-any")
    with zipfile.ZipFile(wheel) as archive:
        assert not {LIBRARY, DESCRIPTION} & set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "gomin_client.cli.main",
            "analyze",
            str(ROOT / "examples" / "crow.flac"),
            "-o",
            "crow.npz",
        ],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "crow.npz").exists()


@pytest.mark.parametrize(("value", "status"), [("0", 0), ("no", 1)])
def test_the_switch(tmp_path: Path, value: str, status: int) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    environment = {**os.environ, "GOMIN_BUILD_NATIVE": value}

    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert result.returncode == status, result.stderr
    if status:
        assert result.stderr.strip() == "GOMIN_BUILD_NATIVE=no: expected 0 (pure Python) or 1"
    else:
        assert [path.stem.endswith("-py3-none-any") for path in tmp_path.glob("*.whl")] == [True]


def test_a_library_from_before_is_not_used(tmp_path: Path) -> None:
    """Neither by a wheel nor by an editable install that builds none; its tree has no .gitignore."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "native", "gomin_export", "gomin_server"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("gomin_client", "gomin_gateway"):
        (tmp_path / "clients" / name / "native").mkdir(parents=True)
    (tmp_path / "clients/gomin_client/__init__.py").touch()
    files = [tmp_path / "clients" / name for name in (LIBRARY, DESCRIPTION)]

    def run(program: str, **changed: str) -> None:
        for file in files:
            file.write_text("old")
        command = [sys.executable, "-c", program]
        environment = {**os.environ, **changed}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    for changed in ({"GOMIN_BUILD_NATIVE": "0"}, {"CXX": "false"}):
        run("from hatchling.build import build_wheel; build_wheel('dist')", **changed)
        with zipfile.ZipFile(*(tmp_path / "dist").iterdir()) as archive:
            assert not {LIBRARY, DESCRIPTION} & set(archive.namelist())
        run(
            "from hatchling.builders.wheel import WheelBuilder\nbuilder = WheelBuilder('.')\n"
            "for hook in builder.get_build_hooks('dist').values():\n"
            "    hook.initialize('editable', builder.get_default_build_data())",
            **changed,
        )
        assert [file for file in files if file.exists()] == []


def test_a_compiler_that_fails_is_reported(tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "native" / "build.py")]

    result = subprocess.run(program, env={**os.environ, "CXX": "false"}, capture_output=True, text=True, check=False)

    assert result.returncode == 1
    assert result.stderr.startswith("error: false -std=c++17")
    assert result.stderr.endswith(" failed with status 1, and printed nothing\n")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a small file system")
def test_a_full_disk_is_reported_and_the_library_from_before_stays(tmp_path: Path) -> None:
    """The compiler is a stand-in, whose library is too large for the disk."""
    (tmp_path / "native").symlink_to(ROOT / "native")
    home = tmp_path / "clients/gomin_client/native"
    home.mkdir(parents=True)
    compiler = tmp_path / "compiler.py"
    compiler.write_text("import sys; open(sys.argv[sys.argv.index('-o') + 1], 'wb').write(bytes(300_000))")
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", home]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("not allowed to mount")
    try:
        for name in (LIBRARY, DESCRIPTION):
            (tmp_path / "clients" / name).write_text("old")
        result = subprocess.run(
            [sys.executable, tmp_path / "native/build.py"],
            env={**os.environ, "CXX": f"{sys.executable} {compiler}"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        left = {path.name: path.read_text() for path in home.iterdir()}
    finally:
        subprocess.run(["umount", home], check=True)

    assert (result.returncode, result.stderr) == (1, f"error: {home}: cannot be written: No space left on device\n")
    assert left == {Path(LIBRARY).name: "old", Path(DESCRIPTION).name: "old"}
