"""Repositories of few models, since a server starts a helper process for each."""

import shutil
from pathlib import Path

import pytest


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
