"""The wheel, installed as users install it: the client alone, and an export outside the source tree."""

from __future__ import annotations

import re
import subprocess
import zipfile
from collections.abc import Callable
from importlib.metadata import Distribution
from pathlib import Path

import numpy as np
import pytest

from gomin_export.cli import app
from tests.pythons import SUPPORTED, constraints
from tests.support import (
    BIN,
    EXAMPLES,
    GOLDEN,
    ROOT,
    RunningServer,
    assert_fails,
    environment,
    interpreter,
    invoke,
    run,
)

MOST_MB = 160
EXTRA = r"pip install 'gomin-triton\[{}\]'"
CLIENT = "gomin_client.cli.main"
RECORDING = EXAMPLES[0]

# Runs a program of the wheel, whose place is the first argument.
PROGRAM = """
import importlib, sys
site, module = sys.argv[1:3]
sys.argv[:3] = [module]
program = importlib.import_module(module)
assert program.__file__.startswith(site), program.__file__
sys.exit(program.main())
"""
VERSIONS = """
import importlib.util, numpy, sys
absent = ["av", "fastapi", "librosa", "matplotlib", "numba", "onnx", "onnxruntime", "pytriton", "scipy", "torch"]
print("{}.{}".format(*sys.version_info), numpy.__version__.partition(".")[0],
      *(name for name in absent if importlib.util.find_spec(name)))
"""
# The audio of a recording, its mel, and files of numbers that do not depend on any transform.
FILES = """
import sys
from pathlib import Path
import numpy as np
from gomin_client.cli.main import app
from gomin_client.files import audio, mels
from gomin_client.mel.features import MelConfig
url, recording, place = sys.argv[1:]
home = Path(place)
app(["reconstruct", recording, "-o", f"{place}/", "--quiet", "--url", url], standalone_mode=False)
app(["analyze", recording, "-o", f"{place}/", "--format", "npy", "--quiet"], standalone_mode=False)
numbers = (np.arange(128 * 300) * 7919 % 65521 / 65521).astype(np.float32)
for extension in (".npz", ".npy"):
    mels.write(home / f"numbers{extension}", numbers.reshape(1, 128, 300), MelConfig())
for extension in (".wav", ".flac"):
    audio.write(home / f"numbers{extension}", numbers - 0.5, 24000)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as pip does it."""
    home = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(home)
    return home


@pytest.fixture(scope="module")
def python_of(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """For a version of Python, one in an environment with what the wheel requires without extras, and numpy 2.

    The numpy of the tests' own environment is older, for the server.
    """
    (information,) = site.glob("*.dist-info")
    required = [name for name in Distribution.at(information).requires or [] if "extra ==" not in name]
    pinned = constraints(tmp_path_factory.mktemp("constraints"))

    def python(version: str) -> Path:
        found = interpreter(version) or pytest.skip(f"Python {version} is not installed")
        return environment("client", required, "--constraint", pinned, python=found)

    return python


@pytest.fixture
def program_of(site: Path, python_of: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Program]:
    """For a version of Python, what runs programs of the wheel in its environment, outside the source tree."""
    return lambda version: Program(site, python_of(version), tmp_path)


class Program:
    def __init__(self, site: Path, python: Path, home: Path) -> None:
        self.site, self.python, self.home = site, python, home

    def __call__(self, module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return self.run("-c", PROGRAM, str(self.site), module, *map(str, arguments))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {"PYTHONPATH": str(self.site), "PATH": str(self.python.parent)}
        command = [str(self.python), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.home, env=env, timeout=300)


@pytest.fixture(scope="module")
def expected(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`FILES` of the source tree, with the numpy of the tests' own environment."""
    assert int(np.__version__.partition(".")[0]) == 1
    home = tmp_path_factory.mktemp("expected")
    made = run("python", "-c", FILES, server.grpc, RECORDING, home)
    assert (made.returncode, made.stderr) == (0, "")
    return home


@pytest.mark.parametrize("version", SUPPORTED)
def test_the_client_alone(
    version: str, program_of: Callable[[str], Program], server: RunningServer, expected: Path, tmp_path: Path
) -> None:
    """It needs no torch, ONNX Runtime or librosa, and with numpy 2 it writes the bytes that it writes with numpy 1."""
    program = program_of(version)
    assert program.run("-c", VERSIONS).stdout.split() == [version, "2"]

    made = program.run("-c", FILES, server.grpc, str(RECORDING), "made")
    over_http = program(CLIENT, "reconstruct", RECORDING, "-o", "made/http.wav", "--quiet", "--url", server.http)

    assert (made.returncode, made.stderr) == (over_http.returncode, over_http.stderr) == (0, "")
    names = {"crow.wav", "crow.npy", "numbers.npz", "numbers.npy", "numbers.wav", "numbers.flac"}
    assert {path.name for path in expected.iterdir()} == names
    for name in names - {"crow.npy"}:
        content = (expected / name).read_bytes()
        assert len(content) > 20_000
        assert (tmp_path / "made" / name).read_bytes() == content, name
    assert (tmp_path / "made/http.wav").read_bytes() == (expected / "crow.wav").read_bytes()
    # numpy 2 computes transforms in another order: near the floor the last bits show
    np.testing.assert_allclose(np.load(tmp_path / "made/crow.npy"), np.load(expected / "crow.npy"), rtol=0, atol=1e-9)


def test_what_needs_an_extra_names_it(program_of: Callable[[str], Program], tmp_path: Path) -> None:
    program = program_of(SUPPORTED[0])
    (tmp_path / "a.m4a").write_bytes((0).to_bytes(3, "big") + b"\x20ftypM4A " + bytes(100))
    for extra, module, *arguments in (
        ("local", CLIENT, "reconstruct", RECORDING, "--url", f"local:{tmp_path}"),
        ("plot", CLIENT, "reconstruct", RECORDING, "--plot", "a.png"),
        ("plot", CLIENT, "compare", RECORDING, RECORDING, "--html", "a.html"),
        ("gateway", "gomin_gateway.cli"),
        ("export", "gomin_export.cli", "gan", "--ckpt", GOLDEN / "gan_v3.pt"),
    ):
        failed = program(module, *arguments)
        assert_fails(failed, 2)
        assert re.search(EXTRA.format(extra), failed.stderr), failed.stderr

    converted = program(CLIENT, "analyze", RECORDING, "-o", "a.pt")
    assert_fails(converted, 2, ".pt files need torch: pip install torch; .npz keeps the same without it")
    decoded = program(CLIENT, "analyze", "a.m4a")
    assert re.search("PyAV: " + EXTRA.format("formats"), decoded.stderr), decoded.stderr
    served = program("gomin_server.cli", "--model-repository", tmp_path)
    assert served.returncode != 0
    assert re.search(EXTRA.format("server"), served.stderr), served.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a.m4a"}


def test_the_clients_size(python_of: Callable[[str], Path], site: Path) -> None:
    """All that pip downloads for it, unpacked; without the bytecode that Python adds."""
    (packages,) = python_of(SUPPORTED[0]).parent.parent.glob("lib/python*/site-packages")
    files = [path for folder in (packages, site) for path in folder.rglob("*") if path.suffix != ".pyc"]

    assert sum(path.stat().st_size for path in files if path.is_file()) <= MOST_MB * 1e6


def test_an_export(site: Path, tiny_repository: Path, tmp_path: Path) -> None:
    """It is the one that the source tree makes in another process, which takes it for its own."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    arguments = ("gan", "--ckpt", GOLDEN / "gan_v3.pt", "--repository", tmp_path / "models")
    program = ("-c", PROGRAM, str(site), "gomin_export.cli")

    first = run("python", *program, *arguments, cwd=elsewhere, env={"PYTHONPATH": str(site), "PATH": str(BIN)})
    model = tmp_path / "models/gomin_gan/1/model.onnx"
    before = model.stat().st_mtime_ns
    second = invoke(app, *arguments)

    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert model.read_bytes() == (tiny_repository / "gomin_gan/1/model.onnx").read_bytes()
    assert "version 1 was made by the same recipe" in second.stderr
    models = ("gomin_mel", "gomin_gan", "gomin_reconstruct")
    assert second.stdout.split() == first.stdout.split() == [f"{tmp_path}/models/{name}/1" for name in models]
    assert model.stat().st_mtime_ns == before
    said, repeated = first.stderr.splitlines(), second.stderr.splitlines()
    for name, reference in (("gomin_mel", "librosa"), ("gomin_gan", "PyTorch")):
        start, end = (said.index(line) for line in said if line.startswith((f"comparing {name} ", f"{name}: ")))
        assert said[start] == f"comparing {name} with {reference}"
        table = said[start + 1 : end + 1]  # before the next model is exported; the same is printed from the record
        assert len(table) > 20
        first_line = repeated.index(table[0])
        assert repeated[first_line : first_line + len(table)] == table
    assert [path.name for path in model.parent.parent.iterdir() if path.is_dir()] == ["1"]
    assert [path.name for path in elsewhere.iterdir()] == []


@pytest.mark.parametrize("home", ["gomin_export/templates", "clients/gomin_client/sampling", "gomin_server/backends"])
def test_what_is_placed_beside_a_model_is_in_the_wheel(home: str, site: Path) -> None:
    """Triton's models and configurations, the sampling chains, and the backend without a build of its own."""
    placed = {path.relative_to(ROOT) for path in (ROOT / home).rglob("*") if path.is_file()}
    files = [path for path in placed if "__pycache__" not in path.parts]

    assert files
    for file in files:
        inside = site / file.relative_to("clients") if file.parts[0] == "clients" else site / file
        assert inside.read_bytes() == (ROOT / file).read_bytes(), file
