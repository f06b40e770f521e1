"""One mel front end for all networks of equal settings: its name, its version, and what an export leaves as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gomin_client.contract.repository import parse_steps, versions
from gomin_export import pipeline
from gomin_export.errors import RepositoryError
from gomin_export.networks import registry
from gomin_export.onnx.forms import GraphOptions
from gomin_export.plan import ExportOptions, ExportPlan
from gomin_export.repository.config import Deployment
from tests.export.placing import use_model
from tests.support import GOLDEN

TINY = GOLDEN / "gan_v3.pt"
DIFFUSION = GOLDEN / "diffusion_small.pt"
PLAIN = ExportOptions(graph=GraphOptions(lowering=False))


def planned(checkpoint: Path, home: Path, options: ExportOptions = ExportOptions()) -> ExportPlan:  # noqa: B008
    architecture = registry.GAN if checkpoint == TINY else registry.DIFFUSION
    return pipeline.Export(architecture, checkpoint, home, options).plan


def front_end(plan: ExportPlan) -> tuple[str, int, bool]:
    (model,) = [model for model in plan.models if model.served.is_shared]
    return model.name, model.version, model.exists


@pytest.fixture
def home(tiny_repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_repository, tmp_path / "models"))


@pytest.fixture
def both(repository: Path, tmp_path: Path) -> Path:
    """A repository of a GAN with 128 mel bands, and of a diffusion model with 32."""
    return Path(shutil.copytree(repository, tmp_path / "models"))


def test_another_export_leaves_it_untouched(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the time of its config.pbtxt changes: a server in poll mode would load it again."""
    files = [path for path in (home / "gomin_mel").rglob("*") if path.is_file()]
    before = {path: path.stat() for path in files}

    use_model(monkeypatch, home / "gomin_gan/1/model.onnx")

    exported = pipeline.export("gan", TINY, home, ExportOptions(graph=GraphOptions(lowering=False), keep=1))

    assert [path.relative_to(home).as_posix() for path in exported.plan.paths] == [
        "gomin_mel/1",
        "gomin_gan/2",
        "gomin_reconstruct/2",
    ]
    assert [versions(home / model) for model in ("gomin_mel", "gomin_gan", "gomin_reconstruct")] == [[1], [2], [2]]
    for path, stat in before.items():
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == (stat.st_mtime_ns, stat.st_ino), path
    assert {report.model: report.failed for report in exported.reports} == {
        "gomin_mel": [],
        "gomin_gan": [],
        "gomin_reconstruct": [],
    }


def test_a_damaged_one_is_made_again_as_the_newest_version(home: Path) -> None:
    path = home / "gomin_mel/1/model.onnx"
    path.write_bytes(path.read_bytes()[:-1])

    exported = pipeline.export("gan", TINY, home)

    assert front_end(exported.plan) == ("gomin_mel", 2, False)
    assert versions(home / "gomin_gan") == [1]  # which the export found in place
    assert (home / "gomin_mel/2/model.onnx").is_file()
    assert front_end(planned(TINY, home, ExportOptions(keep=1))) == ("gomin_mel", 2, True)


def test_a_version_that_is_not_the_newest_does_not_count(home: Path) -> None:
    """Ensembles call the newest one."""
    (home / "gomin_mel/4").mkdir()

    assert front_end(planned(TINY, home)) == ("gomin_mel", 5, False)


def test_settings_of_one_network_do_not_change_it(home: Path) -> None:
    deployment = Deployment(queue_size=7, instances=3, accelerator="cuda", max_frames=99, warm_up=[(1, 20)])
    options = ExportOptions(deployment=deployment, overwrite_config=True)

    plan = planned(TINY, home, options)

    assert plan.config_texts()["gomin_mel"] == (home / "gomin_mel/config.pbtxt").read_text()
    assert 'max_frames" value: { string_value: "99"' in plan.config_texts()["gomin_reconstruct"]


def with_other_bands(config: Path) -> str:
    """Give a model 80 mel bands; returns the text of its config.pbtxt."""
    text = config.read_text()
    edited = text.replace('n_mels" value: { string_value: "128"', 'n_mels" value: { string_value: "80"')
    assert edited != text
    config.write_text(edited)
    return edited


class TestOtherSettings:
    def test_get_a_front_end_with_the_networks_name(self, both: Path, tmp_path: Path) -> None:
        assert front_end(planned(DIFFUSION, tmp_path / "empty")) == ("gomin_mel", 1, False)
        assert front_end(planned(DIFFUSION, both)) == ("gomin_mel_diffusion", 1, True)
        steps = parse_steps(both / "gomin_reconstruct_diffusion/config.pbtxt")
        assert [step.model for step in steps] == ["gomin_mel_diffusion", "gomin_diffusion"]

    def test_keep_it_when_the_shared_name_becomes_free(self, both: Path) -> None:
        """The ensemble's config.pbtxt, which may have been edited, names it."""
        shutil.rmtree(both / "gomin_mel")

        assert front_end(planned(DIFFUSION, both)) == ("gomin_mel_diffusion", 1, True)

    def test_of_an_export_that_ended_in_the_meantime(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two exports at the same time: the one that ends later is made again with another name."""
        use_model(monkeypatch, home / "gomin_gan/1/model.onnx")
        shutil.rmtree(home / "gomin_reconstruct")
        (home / "gomin_mel").rename(home.parent / "gomin_mel")
        said: list[str] = []
        export = pipeline.Export(registry.GAN, TINY, home, PLAIN, said.append)
        assert front_end(export.plan) == ("gomin_mel", 1, False)
        (home.parent / "gomin_mel").rename(home / "gomin_mel")
        placed = with_other_bands(home / "gomin_mel/config.pbtxt")

        exported = export.run()

        assert front_end(exported.plan) == ("gomin_mel_gan", 1, False)
        assert "exporting again, with the front end gomin_mel_gan" in said
        assert sum(line.startswith("comparing gomin_gan with") for line in said) == 1  # not known late
        steps = parse_steps(home / "gomin_reconstruct/config.pbtxt")
        assert [step.model for step in steps] == ["gomin_mel_gan", "gomin_gan"]
        assert (home / "gomin_mel/config.pbtxt").read_text() == placed

    def test_of_an_export_of_the_same_network_are_refused(self, home: Path) -> None:
        export = pipeline.Export(registry.GAN, TINY, home, PLAIN)
        with_other_bands(home / "gomin_gan/config.pbtxt")
        before = sorted(home.rglob("*"))

        with pytest.raises(
            RepositoryError, match=r"gomin_gan: its versions have gomin\.n_mels 80, the new one has 128"
        ):
            export.run()
        assert sorted(home.rglob("*")) == before

    def test_that_have_no_name_left_are_refused(self, both: Path) -> None:
        config = both / "gomin_mel_diffusion/config.pbtxt"
        config.write_text(
            config.read_text().replace('n_mels" value: { string_value: "32"', 'n_mels" value: { string_value: "33"')
        )

        with pytest.raises(RepositoryError, match=r"gomin_mel_diffusion: its versions have gomin\.n_mels 33"):
            planned(DIFFUSION, both)

    def test_an_unreadable_config_is_reported_not_avoided(self, home: Path) -> None:
        (home / "gomin_mel/config.pbtxt").write_text("name: 1")

        with pytest.raises(RepositoryError, match=r"gomin_mel/config\.pbtxt: cannot be read"):
            planned(TINY, home)


@pytest.mark.parametrize(("edited", "expected"), [(None, 16), (4, 4)])
def test_the_batches_of_an_ensemble_are_those_of_the_vocoder(home: Path, edited: int | None, expected: int) -> None:
    """Also where its config.pbtxt is kept with edits: Triton does not start with larger batches in the ensemble."""
    config = home / "gomin_gan/config.pbtxt"
    if edited:
        config.write_text(config.read_text().replace("max_batch_size: 16", f"max_batch_size: {edited}"))
    shutil.rmtree(home / "gomin_reconstruct")  # as in a repository of a version without ensembles

    text = planned(TINY, home).config_texts()["gomin_reconstruct"]

    assert f"\nmax_batch_size: {expected}\n" in text
    assert text.count("dims: [ 1, -1 ]") == 2
