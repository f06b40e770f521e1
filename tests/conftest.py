"""Session-wide fixtures: one export of each kind, one real Triton server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gomin_export import pipeline
from gomin_export.networks import DiffusionWrapper, GomiGAN
from tests.support import DEMO_CHECKPOINT, GOLDEN, RunningServer, serving

torch.set_grad_enabled(False)


@pytest.fixture(scope="session")
def demo_gan() -> GomiGAN:
    return GomiGAN.from_pretrained(DEMO_CHECKPOINT)


@pytest.fixture(scope="session")
def tiny_gan() -> GomiGAN:
    return GomiGAN.from_pretrained(GOLDEN / "gan_v3.pt")


@pytest.fixture(scope="session")
def small_diffusion() -> DiffusionWrapper:
    return DiffusionWrapper.from_pretrained(GOLDEN / "diffusion_small.pt")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with the demo GAN and the small diffusion model, as gomin-export places them."""
    path = tmp_path_factory.mktemp("export") / "model_repository"
    pipeline.export("gan", DEMO_CHECKPOINT, path)
    pipeline.export("diffusion", GOLDEN / "diffusion_small.pt", path)
    return path


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with the tiny GAN, for tests that export again: it takes the least time."""
    path = tmp_path_factory.mktemp("tiny") / "model_repository"
    pipeline.export("gan", GOLDEN / "gan_v3.pt", path)
    return path


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real Triton server on that repository."""
    with serving(repository, tmp_path_factory.mktemp("server") / "log") as running:
        yield running
