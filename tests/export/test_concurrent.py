"""Exports of one network that run at the same time: the later one takes the next version number."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gomin_client.contract.repository import versions
from gomin_export import pipeline
from gomin_export.errors import RepositoryError
from gomin_export.networks import registry
from gomin_export.onnx.forms import GraphOptions
from gomin_export.parity import record
from gomin_export.plan import ExportOptions
from tests.export.placing import use_model
from tests.support import GOLDEN

pytestmark = pytest.mark.long

TINY = GOLDEN / "gan_v3.pt"
PLAIN = ExportOptions(graph=GraphOptions(lowering=False))  # another recipe than that of the tiny repository

# Both exports are planned before either is placed.
PROGRAM = """
import sys, time
from pathlib import Path
import onnx
from gomin_export import cli
from gomin_export.onnx import export

def meet(form, path, metadata):
    here = Path({meeting!r})
    (here / name).touch()
    while len(list(here.iterdir())) < 2:
        time.sleep(0.05)
    model = onnx.load({model!r})
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    export._save(model, path)

export.write = meet
name = sys.argv.pop(1)
cli.main()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def export_while(
    home: Path, tiny_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], object], ExportOptions], tuple[pipeline.Exported, list[str]]]:
    """Export the tiny GAN into an empty repository, in which something happens after the gate has passed."""
    use_model(monkeypatch, tiny_repository / "gomin_gan/1/model.onnx")

    def export(meanwhile: Callable[[], object], options: ExportOptions) -> tuple[pipeline.Exported, list[str]]:
        write_report = record.write_report
        happened: list[object] = []

        def last(files: Path, report: pipeline.Report) -> None:
            write_report(files, report)
            if files.parent.name == "gomin_reconstruct" and not happened:
                happened.append(meanwhile())

        monkeypatch.setattr(record, "write_report", last)
        said: list[str] = []
        exported = pipeline.Export(registry.GAN, TINY, home, options, said.append).run()
        return exported, said

    return export


def everything(home: Path) -> dict[str, list[int]]:
    return {model.name: versions(model) for model in home.iterdir()}


def test_two_programs_at_once(home: Path, tiny_repository: Path, tmp_path: Path) -> None:
    (tmp_path / "meeting").mkdir()
    model = str(tiny_repository / "gomin_gan/1/model.onnx")
    program = PROGRAM.format(meeting=str(tmp_path / "meeting"), model=model)
    arguments = ["gan", "--ckpt", TINY, "--repository", home]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, name, *arguments, *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name, options in (("a", []), ("b", ["--no-lowering"]))
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=120) for process in running]
    finally:
        for process in running:
            process.kill()

    assert [process.returncode for process in running] == [0, 0], said
    assert everything(home) == {"gomin_mel": [1], "gomin_gan": [1, 2], "gomin_reconstruct": [1, 2]}
    placed = [out.split()[1] for out, _ in said]
    assert sorted(placed) == [str(home / "gomin_gan/1"), str(home / "gomin_gan/2")]
    assert {path.name for path in tmp_path.iterdir()} == {"meeting", "models"}


def test_the_tested_files_get_the_next_number(
    export_while: Callable[..., tuple[pipeline.Exported, list[str]]], home: Path, tiny_repository: Path
) -> None:
    exported, said = export_while(lambda: shutil.copytree(tiny_repository, home), PLAIN)

    assert everything(home) == {"gomin_mel": [1], "gomin_gan": [1, 2], "gomin_reconstruct": [1, 2]}
    assert [path.name for path in exported.plan.paths] == ["1", "2", "2"]
    assert sum(line.startswith("comparing gomin_gan with") for line in said) == 1
    assert "another export has placed version 1 since this one began: placing another version" in said
    again = pipeline.Export(registry.GAN, TINY, home, PLAIN).plan
    assert (again.version, again.exists) == (2, True)
    assert 'gomin.source.2"' in (home / "gomin_gan/config.pbtxt").read_text()


def test_the_settings_that_the_other_export_has_placed_stay(
    export_while: Callable[..., tuple[pipeline.Exported, list[str]]], home: Path, tiny_repository: Path
) -> None:
    """Also those that were not there when this one was planned."""

    def other() -> None:
        shutil.copytree(tiny_repository, home)
        config = home / "gomin_gan/config.pbtxt"
        config.write_text(config.read_text().replace("max_batch_size: 16", "max_batch_size: 3"))

    export_while(other, PLAIN)

    assert "\nmax_batch_size: 3\n" in (home / "gomin_gan/config.pbtxt").read_text()
    assert versions(home / "gomin_gan") == [1, 2]


def test_the_same_export_is_found_in_place(
    export_while: Callable[..., tuple[pipeline.Exported, list[str]]], home: Path, tiny_repository: Path
) -> None:
    exported, said = export_while(lambda: shutil.copytree(tiny_repository, home), ExportOptions())

    assert everything(home) == {"gomin_mel": [1], "gomin_gan": [1], "gomin_reconstruct": [1]}
    assert exported.plan.exists
    assert "version 1 was made by the same recipe: nothing to export" in said


def test_a_number_that_was_asked_for_is_not_changed(
    export_while: Callable[..., tuple[pipeline.Exported, list[str]]], home: Path, tiny_repository: Path
) -> None:
    options = ExportOptions(graph=GraphOptions(lowering=False), version=1)

    with pytest.raises(RepositoryError, match="/1: exists, and is another export; the next free version is 2"):
        export_while(lambda: shutil.copytree(tiny_repository, home), options)
    assert everything(home) == {"gomin_mel": [1], "gomin_gan": [1], "gomin_reconstruct": [1]}


def test_a_file_with_the_name_of_a_version(
    export_while: Callable[..., tuple[pipeline.Exported, list[str]]], home: Path, tiny_repository: Path
) -> None:
    shutil.copytree(tiny_repository, home)
    (home / "gomin_gan/2").touch()

    with pytest.raises(RepositoryError, match="gomin_gan/2: is a file, not a version"):
        export_while(lambda: None, PLAIN)
