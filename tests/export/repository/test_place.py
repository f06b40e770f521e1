"""Placing models, without exporting any: the files are stand-ins."""

import os
import signal
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from gomin_client.contract.model import ModelContract, Provenance
from gomin_client.contract.repository import read_config, versions
from gomin_client.errors import Interrupted, UsageError
from gomin_client.mel.features import MelConfig
from gomin_export.errors import RepositoryError
from gomin_export.networks import registry
from gomin_export.repository import place as placing
from gomin_export.repository.config import Deployment, config_text
from gomin_export.repository.staging import staging, transferred

GAN = ModelContract("gan", MelConfig(), halo_frames=8)
DENOISER = ModelContract("denoiser", MelConfig(), halo_frames=1, num_diffusion_steps=50)
FRONT_END = ModelContract("mel", MelConfig(), halo_frames=0, max_frames=1000)
DEFAULTS = Deployment()
SERVED = {model.name: model for known in (registry.GAN, registry.DIFFUSION) for model in known.models}
DIFFUSION = replace(DENOISER, kind="diffusion")


def place(
    home: Path,
    contracts: Sequence[ModelContract],
    sha256: str,
    *,
    wanted: int | None = None,
    keep: int | None = None,
    deployment: Deployment = DEFAULTS,
    overwrite: bool = False,
    meanwhile: Callable[[], object] = lambda: None,
) -> int:
    """What an export does, with stand-ins for models."""
    names = [f"gomin_{contract.kind}" for contract in contracts]
    for name, contract in zip(names, contracts, strict=True):
        placing.check_contract(home, name, contract, overwrite)
    version = placing.choose_version(home, names, wanted)
    dropped = {name: placing.dropped_versions(home, name, version, keep) for name in names}
    with staging(home) as stage:
        models = []
        for name, contract in zip(names, contracts, strict=True):
            text = config_text(SERVED[name], contract, deployment)
            config = placing.choose_config(home, name, text, deployment, "fp32", overwrite)
            (stage / name / str(version)).mkdir(parents=True)
            (stage / name / str(version) / "model.onnx").write_text(f"made of {sha256}")
            models.append(placing.StagedModel(name, contract, version, stage / name, config, Provenance(sha256)))
        meanwhile()
        with transferred(home, [model.home for model in models]) as homes, placing.signals_deferred():
            models = [replace(model, home=staged) for model, staged in zip(models, homes, strict=True)]
            placing.place_models(home, models, dropped)
    return version


def provenance(home: Path, model: str) -> dict[int, str]:
    described = ModelContract.from_parameters(model, read_config(home / model / "config.pbtxt"))
    return {version: made.checkpoint_sha256 for version, made in described.provenance.items()}


def test_versions_count_up_and_old_ones_stay(tmp_path: Path) -> None:
    home = tmp_path / "models"

    assert place(home, [GAN], "aa") == 1
    assert place(home, [GAN], "bb") == 2

    assert (home / "gomin_gan/1/model.onnx").read_text() == "made of aa"
    assert (home / "gomin_gan/2/model.onnx").read_text() == "made of bb"
    assert provenance(home, "gomin_gan") == {1: "aa", 2: "bb"}


def test_models_of_one_export_share_their_version(tmp_path: Path) -> None:
    home = tmp_path / "models"
    place(home, [DENOISER], "aa")

    assert place(home, [DENOISER, DIFFUSION], "bb") == 2

    assert versions(home / "gomin_denoiser") == [1, 2]
    assert versions(home / "gomin_diffusion") == [2]


def test_a_version_can_be_chosen_and_never_replaced(tmp_path: Path) -> None:
    home = tmp_path / "models"

    assert place(home, [GAN], "aa", wanted=7) == 7
    assert place(home, [GAN], "bb") == 8
    with pytest.raises(RepositoryError, match=r"gomin_gan/7: exists, .* the next free version is 9"):
        place(home, [GAN], "cc", wanted=7)
    with pytest.raises(UsageError, match="--version 0: expected 1 to"):
        place(home, [GAN], "cc", wanted=0)


def test_old_versions_are_dropped_with_their_provenance(tmp_path: Path) -> None:
    home = tmp_path / "models"
    for sha256 in ("aa", "bb", "cc"):
        place(home, [DENOISER, DIFFUSION], sha256)

    place(home, [DENOISER, DIFFUSION], "dd", keep=2)

    for model in ("gomin_denoiser", "gomin_diffusion"):
        assert sorted(path.name for path in (home / model).iterdir()) == ["3", "4", "config.pbtxt"]
        assert provenance(home, model) == {3: "cc", 4: "dd"}
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_a_version_that_would_be_dropped_at_once_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "models"
    place(home, [GAN], "aa", wanted=8)
    place(home, [GAN], "bb", wanted=9)

    with pytest.raises(UsageError, match="has 2 newer versions, so 3 would be removed at once"):
        place(home, [GAN], "cc", wanted=3, keep=2)
    with pytest.raises(UsageError, match="at least 1"):
        place(home, [GAN], "cc", keep=0)
    assert versions(home / "gomin_gan") == [8, 9]


def test_settings_for_a_config_that_has_them_are_no_conflict(tmp_path: Path) -> None:
    home = tmp_path / "models"
    place(home, [GAN], "aa", deployment=Deployment(max_batch_size=4))

    assert place(home, [GAN], "bb", deployment=Deployment(max_batch_size=4)) == 2


def test_settings_that_an_existing_config_does_not_have_are_refused_or_written_anew(tmp_path: Path) -> None:
    home = tmp_path / "models"
    place(home, [GAN], "aa", deployment=Deployment(threads=2))
    config = home / "gomin_gan/config.pbtxt"

    with pytest.raises(
        RepositoryError, match=r"max_batch_size is 16, asked for 4: edit it, or give --overwrite-config"
    ):
        place(home, [GAN], "bb", deployment=Deployment(max_batch_size=4))
    assert versions(home / "gomin_gan") == [1]
    place(home, [GAN], "bb", deployment=Deployment(max_batch_size=4), overwrite=True)

    assert "max_batch_size: 4\n" in config.read_text()
    assert read_config(config)["intra_op_thread_count"] == "0"
    assert provenance(home, "gomin_gan") == {1: "aa", 2: "bb"}


def test_only_what_is_asked_for_is_compared_with_an_edited_config(tmp_path: Path) -> None:
    home = tmp_path / "models"
    place(home, [DENOISER, DIFFUSION], "aa")
    for model in ("gomin_denoiser", "gomin_diffusion"):
        config = home / model / "config.pbtxt"
        config.write_text("# mine\n" + config.read_text().replace("max_batch_size: 16", "max_batch_size: 8"))

    assert place(home, [DENOISER, DIFFUSION], "bb", deployment=Deployment(instances=1, max_batch_size=8)) == 2
    with pytest.raises(RepositoryError, match=r"instances is \[1\], asked for \[2\]"):
        place(home, [DENOISER, DIFFUSION], "cc", deployment=Deployment(instances=2))


def test_an_edit_made_while_an_export_runs_is_kept(tmp_path: Path) -> None:
    home = tmp_path / "models"
    place(home, [GAN], "aa")
    config = home / "gomin_gan/config.pbtxt"

    def edit() -> None:
        config.write_text("# mine\n" + config.read_text().replace("max_batch_size: 16", "max_batch_size: 4"))

    place(home, [GAN], "bb", meanwhile=edit)

    assert config.read_text().startswith("# mine\n")
    assert "max_batch_size: 4\n" in config.read_text()
    assert provenance(home, "gomin_gan") == {1: "aa", 2: "bb"}


def test_two_exports_at_once_both_keep_their_provenance(tmp_path: Path) -> None:
    home = tmp_path / "models"
    place(home, [GAN], "aa")

    place(home, [GAN], "bb", wanted=11, meanwhile=lambda: place(home, [GAN], "cc", wanted=12))

    assert provenance(home, "gomin_gan") == {1: "aa", 11: "bb", 12: "cc"}
    with pytest.raises(RepositoryError, match="13: was made during this export"):
        place(home, [GAN], "dd", meanwhile=lambda: place(home, [GAN], "ee"))


def test_a_shared_model_that_another_export_has_placed_meanwhile_stays(tmp_path: Path) -> None:
    """Two first exports at once both make the mel front end; only another file under its version is an error."""
    home = tmp_path / "models"

    def place_front_end(content: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        with staging(home) as stage:
            (stage / "gomin_mel/1").mkdir(parents=True)
            (stage / "gomin_mel/1/model.onnx").write_text(content)
            text = config_text(SERVED["gomin_mel"], FRONT_END, DEFAULTS)
            staged = placing.StagedModel(
                "gomin_mel", FRONT_END, 1, stage / "gomin_mel", text, Provenance(content), is_shared=True
            )
            meanwhile()
            placing.place_models(home, [staged], {})

    place_front_end("same", meanwhile=lambda: place_front_end("same"))
    assert provenance(home, "gomin_mel") == {1: "same"}
    with pytest.raises(RepositoryError, match="gomin_mel/1: was made during this export"):
        place_front_end("other")
    assert (home / "gomin_mel/1/model.onnx").read_text() == "same"


def test_provenance_survives_other_layouts_and_comments(tmp_path: Path) -> None:
    """Parameters on several lines, as other tools write them; and a comment that looks like a parameter."""
    home = tmp_path / "models"
    place(home, [GAN], "aa")
    config = home / "gomin_gan/config.pbtxt"
    comment = '# parameters { key: "gomin.parity.1" value: { string_value: "old" } }\nparameters { key: "mine" }\n'
    config.write_text(text_format.MessageToString(text_format.Parse(config.read_text(), ModelConfig())) + comment)

    place(home, [GAN], "bb")
    assert comment in config.read_text()
    place(home, [GAN], "cc", overwrite=True)

    assert provenance(home, "gomin_gan") == {1: "aa", 2: "bb", 3: "cc"}


def test_a_config_that_is_gone_is_written_again(tmp_path: Path) -> None:
    home = tmp_path / "models"
    place(home, [GAN], "aa")
    (home / "gomin_gan/config.pbtxt").unlink()

    place(home, [GAN], "bb")

    assert provenance(home, "gomin_gan") == {2: "bb"}


def test_a_damaged_config_is_refused_or_overwritten(tmp_path: Path) -> None:
    home = tmp_path / "models"
    place(home, [GAN], "aa")
    (home / "gomin_gan/config.pbtxt").write_bytes(b"\xff\xfe")

    with pytest.raises(
        RepositoryError, match=r"^[^:]*config\.pbtxt: cannot be read .*; correct it, give --overwrite-config"
    ):
        place(home, [GAN], "bb")
    place(home, [GAN], "bb", overwrite=True)

    assert provenance(home, "gomin_gan") == {2: "bb"}


def test_old_versions_go_last_and_a_chain_before_its_denoiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "models"
    place(home, [DENOISER, DIFFUSION], "aa")
    rename = Path.rename
    renamed: list[str] = []

    def noted(self: Path, target: Path) -> Path:
        renamed.append(f"{self.parent.name}/{self.name}")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", noted)
    place(home, [DENOISER, DIFFUSION], "bb", keep=1)

    assert renamed == ["gomin_denoiser/2", "gomin_diffusion/2", "gomin_diffusion/1", "gomin_denoiser/1"]
    assert versions(home / "gomin_denoiser") == versions(home / "gomin_diffusion") == [2]


def test_a_signal_waits_until_the_models_are_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "models"
    rename = Path.rename
    seen: list[int] = []

    def signalled(self: Path, target: Path) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return rename(self, target)

    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    monkeypatch.setattr(Path, "rename", signalled)
    try:
        assert place(home, [DENOISER, DIFFUSION], "aa") == 1
    finally:
        signal.signal(signal.SIGINT, before)

    assert seen == [signal.SIGINT]  # once, and afterwards
    assert versions(home / "gomin_diffusion") == [1]


def test_a_file_whose_name_is_a_number_is_no_version(tmp_path: Path) -> None:
    home = tmp_path / "models"
    place(home, [GAN], "aa")
    (home / "gomin_gan/7").touch()

    assert versions(home / "gomin_gan") == [1]


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
