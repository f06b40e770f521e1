"""Session-wide fixtures: one export of each kind, one real Triton server for each test process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

# Before numpy, torch or ONNX Runtime is imported, here and in every subprocess: threads that spin while they wait take
# the two cores of a busy machine away from those that work. One call took 300 s instead of one.
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from filelock import FileLock

from tests.support import GOLDEN, ROOT, SHARED_GAN, UNPROBED, RunningServer, missing, serving

if TYPE_CHECKING:
    from gomin_client.native.library import OperatorLibrary
    from gomin_export.networks import DiffusionWrapper, GomiGAN

# Subprocesses, of which there are hundreds, would compile all our modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# No test may depend on how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Before several processes load librosa for the first time, one does; see `gomin_export.parity.librosa_loading`."""
    is_first = not hasattr(config, "workerinput")
    if is_first and getattr(config.option, "numprocesses", None) and find_spec("librosa"):
        loading = "from gomin_export.parity.librosa_loading import load_librosa; load_librosa()"
        subprocess.run([sys.executable, "-c", loading], cwd=ROOT, check=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the shared server, and put files first that have slow tests or many.

    Tests that start their own server are marked where they are written. A long file that came last would run alone. Of
    those files, the ones that need the shared repository come later: one process exports it, and the others would wait.
    """
    early, sharing = set(), set()
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "server" in fixtures:
            item.add_marker(pytest.mark.server)
        if item.get_closest_marker("slow") or item.get_closest_marker("long"):
            early.add(item.path)
        if "repository" in fixtures:
            sharing.add(item.path)
    items.sort(key=lambda item: (item.path not in early, item.path in sharing))


@pytest.fixture(scope="session")
def shared_gan() -> GomiGAN:
    pytest.importorskip("torch")  # see tests/pythons.py
    from gomin_export.networks import GomiGAN

    return GomiGAN.from_pretrained(SHARED_GAN)


@pytest.fixture(scope="session")
def tiny_gan() -> GomiGAN:
    pytest.importorskip("torch")  # see tests/pythons.py
    from gomin_export.networks import GomiGAN

    return GomiGAN.from_pretrained(GOLDEN / "gan_v3.pt")


@pytest.fixture(scope="session")
def small_diffusion() -> DiffusionWrapper:
    pytest.importorskip("torch")  # see tests/pythons.py
    from gomin_export.networks import DiffusionWrapper

    return DiffusionWrapper.from_pretrained(GOLDEN / "diffusion_small.pt")


Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Once:
    """Make a directory once for all test processes: the first that needs it makes it, the others wait."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent  # pytest-xdist: one base directory for each process

    def made(name: str, make: Callable[[Path], None]) -> Path:
        home = shared / name
        with FileLock(shared / f"{name}.lock"):
            if not (home / "complete").exists():
                home.mkdir(exist_ok=True)
                make(home)
                (home / "complete").touch()
        return home

    return made


@pytest.fixture(scope="session")
def exported_once(once: Once) -> Once:
    """Make a model repository once for all test processes."""

    def made(name: str, export: Callable[[Path], None]) -> Path:
        def make(home: Path) -> None:
            pytest.importorskip("torch")  # see tests/pythons.py
            export(home / "model_repository")

        return once(name, make) / "model_repository"

    return made


@pytest.fixture(scope="session")
def wheel(once: Once) -> Path:
    """The wheel of the source tree, with the operator library if there is a compiler."""

    def build(home: Path) -> None:
        from tests.pythons import build_wheel

        build_wheel(home / "dist")

    (wheel,) = once("wheel", build).glob("dist/*.whl")
    return wheel


@pytest.fixture(scope="session")
def repository(exported_once: Once) -> Path:
    """The shared GAN and the small diffusion model, as gomin-export places them; not to be changed by a test."""

    def export(home: Path) -> None:
        from gomin_export import pipeline
        from gomin_export.plan import ExportOptions
        from gomin_export.repository.config import Deployment

        one_thread = ExportOptions(deployment=Deployment(threads=1))
        pipeline.export("gan", SHARED_GAN, home, one_thread)
        pipeline.export("diffusion", GOLDEN / "diffusion_small.pt", home, one_thread)

    return exported_once("repository", export)


@pytest.fixture(scope="session")
def tiny_repository(exported_once: Once) -> Path:
    """The tiny GAN, which takes the least time to export again; not to be changed by a test."""

    def export(home: Path) -> None:
        from gomin_export import pipeline

        pipeline.export("gan", GOLDEN / "gan_v3.pt", home)

    return exported_once("tiny", export)


@pytest.fixture(scope="session")
def streaming(exported_once: Once) -> Path:
    """A tiny diffusion model whose repository has the model that streams its steps; not to be changed by a test."""

    def export(home: Path) -> None:
        import torch

        from gomin_client.sampling.settings import SamplerSettings
        from gomin_export import pipeline
        from gomin_export.networks import DiffusionWrapper
        from gomin_export.plan import ExportOptions
        from gomin_export.repository.config import Deployment

        torch.manual_seed(0)
        checkpoint = home.with_name("tiny.pt")
        torch.save(DiffusionWrapper(32, 2, 8, 2).state_dict(), checkpoint)
        deployment = Deployment(sampling=SamplerSettings(sampler="ddim", steps=5), tile_frames=10)
        pipeline.export("diffusion", checkpoint, home, ExportOptions(deployment=deployment, stream=True))

    return exported_once("streaming", export)


# A server starts a helper process for each model: few models start sooner.


@pytest.fixture(scope="session")
def gan_repository(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny GAN alone, with which a server starts soonest; not to be changed by a test."""
    home = tmp_path_factory.mktemp("gan")
    shutil.copytree(tiny_repository / "gomin_gan", home / "gomin_gan")
    return home


@pytest.fixture(scope="session")
def vocoder_repository(repository: Path, gan_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny GAN and the small diffusion model, without ensembles and their front ends; not to be changed."""
    home = tmp_path_factory.mktemp("lone")
    shutil.copytree(gan_repository, home, dirs_exist_ok=True)
    for model in ("gomin_denoiser", "gomin_diffusion"):
        shutil.copytree(repository / model, home / model)
    return home


@pytest.fixture(scope="session")
def operator_library(tmp_path_factory: pytest.TempPathFactory) -> OperatorLibrary:
    """The library of our own operators, as an installation has it; built here if this tree has none."""
    from gomin_client.native.library import find_library

    said = ""
    with FileLock(tmp_path_factory.getbasetemp().parent / "operators.lock"):
        library = find_library()
        if library is None:
            command = [sys.executable, ROOT / "native" / "build.py"]
            said = subprocess.run(command, capture_output=True, text=True, check=False).stderr.strip()
            library = find_library()
    if library is None:
        missing(f"the operator library ({said})")
    assert library is not None
    return library


@pytest.fixture(scope="session")
def native_repository(operator_library: OperatorLibrary, exported_once: Once) -> Path:
    """The shared GAN for `--target native`; not to be changed by a test."""

    def export(home: Path) -> None:
        from gomin_export import pipeline
        from gomin_export.onnx.forms import GraphOptions
        from gomin_export.plan import ExportOptions
        from gomin_export.repository.config import Deployment

        options = ExportOptions(graph=GraphOptions(target="native"), deployment=Deployment(threads=1))
        pipeline.export("gan", SHARED_GAN, home, options)

    return exported_once("native", export)


@pytest.fixture(scope="session")
def float16_repository(exported_once: Once) -> Path:
    """The GAN of the shared server in float16, as gomin-export places it; not to be changed by a test."""

    def export(home: Path) -> None:
        from gomin_export import pipeline
        from gomin_export.onnx.forms import GraphOptions
        from gomin_export.plan import ExportOptions

        pipeline.export("gan", SHARED_GAN, home, ExportOptions(graph=GraphOptions("fp16")))

    return exported_once("float16", export)


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real Triton server on that repository, shared by all tests that do not end it."""
    with serving(repository, tmp_path_factory.mktemp("server") / "log", UNPROBED) as running:
        yield running


@pytest.fixture(params=["grpc", "http", "local", "bare"])
def url(request: pytest.FixtureRequest, server: RunningServer, repository: Path) -> str:
    """The shared server over each protocol, and the same repository in-process."""
    return {
        "grpc": server.grpc,
        "http": server.http,
        "local": f"local:{repository}",
        "bare": server.grpc.removeprefix("grpc://"),
    }[request.param]
