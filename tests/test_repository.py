"""Placing models, without exporting any: the files are stand-ins."""

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gomin_client.contract import ModelContract
from gomin_client.errors import Interrupted
from gomin_client.mel import MelConfig
from gomin_client.model_repository import read_config, versions
from gomin_export import repository
from gomin_export.errors import RepositoryError

GAN = ModelContract("gan", MelConfig(), halo_frames=8)
DENOISER = ModelContract("denoiser", MelConfig(), halo_frames=1, num_diffusion_steps=50)
DIFFUSION = replace(DENOISER, kind="diffusion")


def place(home: Path, contracts: Sequence[ModelContract], sha256: str, content: str = "model") -> int:
    with repository.staging(home) as stage:
        models = []
        for contract in contracts:
            name = f"gomin_{contract.kind}"
            (stage / name).mkdir()
            (stage / name / "model.onnx").write_text(content)
            models.append(repository.StagedModel(name, contract, stage / name))
        return repository.place(home, models, sha256)


def test_versions_count_up_and_old_ones_stay(tmp_path: Path) -> None:
    home = tmp_path / "models"

    assert place(home, [GAN], "aa", "old") == 1
    assert place(home, [GAN], "bb", "new") == 2

    assert (home / "gomin_gan/1/model.onnx").read_text() == "old"
    assert (home / "gomin_gan/2/model.onnx").read_text() == "new"
    parameters = read_config(home / "gomin_gan/config.pbtxt")
    assert ModelContract.from_parameters("gomin_gan", parameters).checkpoint_sha256 == {1: "aa", 2: "bb"}


def test_models_of_one_export_share_their_version(tmp_path: Path) -> None:
    home = tmp_path / "models"
    place(home, [DENOISER], "aa")

    assert place(home, [DENOISER, DIFFUSION], "bb") == 2

    assert versions(home / "gomin_denoiser") == [1, 2]
    assert versions(home / "gomin_diffusion") == [2]


def test_edits_of_a_config_are_kept(tmp_path: Path) -> None:
    home = tmp_path / "models"
    place(home, [GAN], "aa")
    config = home / "gomin_gan/config.pbtxt"
    edited = config.read_text().replace("max_batch_size: 16", "max_batch_size: 3  # small GPU")
    config.write_text(edited)

    place(home, [GAN], "bb")

    assert config.read_text().startswith(edited)


def test_a_version_with_another_contract_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "models"
    place(home, [GAN], "aa")
    before = (home / "gomin_gan/config.pbtxt").read_text()

    with pytest.raises(RepositoryError, match=r"have gomin\.halo_frames 8, the new one has 9"):
        place(home, [replace(GAN, halo_frames=9)], "bb")

    assert (home / "gomin_gan/config.pbtxt").read_text() == before
    assert versions(home / "gomin_gan") == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_a_foreign_model_of_the_same_name_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "models"
    (home / "gomin_gan").mkdir(parents=True)
    (home / "gomin_gan/config.pbtxt").write_text('name: "gomin_gan"\n')

    with pytest.raises(RepositoryError, match="is not a GOMIN model"):
        place(home, [GAN], "aa")


def test_a_second_model_that_cannot_be_placed_takes_the_first_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "models"
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == home / "gomin_diffusion":
            raise OSError(28, "No space left on device", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)

    with pytest.raises(RepositoryError, match=r"gomin_diffusion: No space left on device"):
        place(home, [DENOISER, DIFFUSION], "aa")

    assert list(home.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), Interrupted(2)])
def test_a_second_version_that_fails_leaves_the_first_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    home = tmp_path / "models"
    place(home, [DENOISER, DIFFUSION], "aa")
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == home / "gomin_diffusion" / "2":
            raise failure
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)

    with pytest.raises((RepositoryError, Interrupted)):
        place(home, [DENOISER, DIFFUSION], "bb")

    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before
    assert not (home / "gomin_denoiser" / "2").exists()


def test_a_repository_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(RepositoryError, match="cannot be written to"):
        place(tmp_path / "file" / "models", [GAN], "aa")


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    home = tmp_path / "models"
    old = os.umask(umask)
    try:
        place(home, [GAN], "aa")
    finally:
        os.umask(old)

    for path in home.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~umask, path
