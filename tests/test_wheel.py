"""The wheel, installed as users install it: the client alone, and an export outside the source tree."""

from __future__ import annotations

import re
import subprocess
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import numpy as np
import pytest
import torch

from gomin_export.networks import DiffusionWrapper
from tests.support import BIN, EXAMPLES, GOLDEN, ROOT, RunningServer, assert_fails, environment, run

MOST_MB = 160
EXTRA = r"pip install 'gomin-triton\[{}\]'"

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
import importlib.util, numpy
absent = ["av", "fastapi", "librosa", "matplotlib", "numba", "onnx", "onnxruntime", "pytriton", "scipy", "torch"]
print(numpy.__version__.partition(".")[0], *(name for name in absent if importlib.util.find_spec(name)))
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as pip does it."""
    home = tmp_path_factory.mktemp("wheel")
    built = run("pip", "wheel", ROOT, "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", home)
    assert built.returncode == 0, built.stderr
    (wheel,) = home.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(home / "site")
    return home / "site"


@pytest.fixture(scope="module")
def python(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with what the wheel requires without extras, and numpy 2.

    The numpy of the tests' own environment is older, for the server.
    """
    (information,) = site.glob("*.dist-info")
    required = [name for name in Distribution.at(information).requires or [] if "extra ==" not in name]
    constraints = tmp_path_factory.mktemp("constraints") / "constraints.txt"
    pinned = (ROOT / "constraints.txt").read_text()
    constraints.write_text(re.sub(r"(?m)^numpy==.*$", "numpy>=2", pinned))
    return environment("client", required, "--constraint", constraints)


@pytest.fixture
def program(site: Path, python: Path, tmp_path: Path) -> Program:
    """Runs a program of the wheel in that environment, outside the source tree."""
    return Program(site, python, tmp_path)


class Program:
    def __init__(self, site: Path, python: Path, home: Path) -> None:
        self.site, self.python, self.home = site, python, home

    def __call__(self, module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return self.run("-c", PROGRAM, str(self.site), module, *map(str, arguments))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {"PYTHONPATH": str(self.site), "PATH": str(self.python.parent)}
        command = [str(self.python), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.home, env=env, timeout=300)


def test_the_client_alone(program: Program, server: RunningServer, tmp_path: Path) -> None:
    """It needs no torch, ONNX Runtime or librosa, and with numpy 2 it writes the bytes that it writes with numpy 1."""
    assert program.run("-c", VERSIONS).stdout.split() == ["2"]
    recordings = EXAMPLES[:2]
    assert int(np.__version__.partition(".")[0]) == 1

    for url, folder in ((server.grpc, "grpc"), (server.http, "http")):
        reconstructed = program(
            "gomin_client.cli.main", "reconstruct", *recordings, "-o", f"there/{folder}/", "--url", url
        )
        assert reconstructed.returncode == 0, reconstructed.stderr
    analyzed = program("gomin_client.cli.main", "analyze", *recordings, "-o", "there/mels/", "--format", "npy")
    assert analyzed.returncode == 0, analyzed.stderr
    here = run("gomin-client", "reconstruct", *recordings, "-o", tmp_path / "here", "--url", server.grpc)
    assert here.returncode == 0, here.stderr
    here = run("gomin-client", "analyze", *recordings, "-o", tmp_path / "here", "--format", "npy")
    assert here.returncode == 0, here.stderr

    for recording in recordings:
        expected = (tmp_path / f"here/{recording.stem}.wav").read_bytes()
        assert len(expected) > 20_000
        for folder in ("grpc", "http"):
            assert (tmp_path / f"there/{folder}/{recording.stem}.wav").read_bytes() == expected
        mels = [np.load(tmp_path / place / f"{recording.stem}.npy") for place in ("here", "there/mels")]
        # near the floor the last bits of the transforms show
        np.testing.assert_allclose(*mels, rtol=0, atol=1e-9)


def test_what_needs_an_extra_names_it(program: Program, tmp_path: Path) -> None:
    (tmp_path / "a.m4a").write_bytes((0).to_bytes(3, "big") + b"\x20ftypM4A " + bytes(100))
    recording = EXAMPLES[0]
    for extra, module, *arguments in (
        ("local", "gomin_client.cli.main", "reconstruct", recording, "--url", f"local:{tmp_path}"),
        ("plot", "gomin_client.cli.main", "reconstruct", recording, "--plot", "a.png"),
        ("plot", "gomin_client.cli.main", "compare", recording, recording, "--html", "a.html"),
        ("gateway", "gomin_gateway.cli"),
        ("export", "gomin_export.cli", "gan", "--ckpt", GOLDEN / "gan_v3.pt"),
    ):
        failed = program(module, *arguments)
        assert_fails(failed, 2)
        assert re.search(EXTRA.format(extra), failed.stderr), failed.stderr

    converted = program("gomin_client.cli.main", "analyze", recording, "-o", "a.pt")
    assert_fails(converted, 2, ".pt files need torch: pip install torch; .npz keeps the same without it")
    decoded = program("gomin_client.cli.main", "analyze", "a.m4a")
    assert re.search("PyAV: " + EXTRA.format("formats"), decoded.stderr), decoded.stderr
    served = program("gomin_server.cli", "--model-repository", tmp_path)
    assert served.returncode != 0
    assert re.search(EXTRA.format("server"), served.stderr), served.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a.m4a"}


def test_the_clients_size(python: Path, site: Path) -> None:
    """All that pip downloads for it, unpacked; without the bytecode that Python adds."""
    (packages,) = python.parent.parent.glob("lib/python*/site-packages")
    files = [path for folder in (packages, site) for path in folder.rglob("*") if path.suffix != ".pyc"]

    assert sum(path.stat().st_size for path in files if path.is_file()) <= MOST_MB * 1e6


def test_an_export(site: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    checkpoint = tmp_path / "tiny.pt"
    torch.save(DiffusionWrapper(8, 2, 8, 2).state_dict(), checkpoint)
    arguments = ("-c", PROGRAM, str(site), "gomin_export.cli", "diffusion", "--ckpt", checkpoint)

    result = run("python", *arguments, cwd=elsewhere, env={"PYTHONPATH": str(site), "PATH": str(BIN)})

    assert result.returncode == 0, result.stderr
    models = ("gomin_mel", "gomin_denoiser", "gomin_diffusion", "gomin_reconstruct_diffusion")
    assert result.stdout.split() == [f"model_repository/{model}/1" for model in models]
    assert (elsewhere / "model_repository/gomin_diffusion/1/sampling/jobs.py").is_file()
    assert "gomin_diffusion: 1 of 1 cases passed" in result.stderr
    assert (site / "gomin_server/backends/onnxruntime/model.py").is_file()
