"""Plans of exports: options, and the search for an export by the same recipe."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gomin_client.errors import UsageError
from gomin_export import pipeline
from gomin_export.networks import registry
from gomin_export.onnx.forms import GraphOptions
from gomin_export.plan import ExportOptions
from gomin_export.repository.config import Deployment
from tests.support import GOLDEN

CHECKPOINT = GOLDEN / "gan_v3.pt"


def test_a_changed_file_or_recipe_is_exported_anew(tiny_repository: Path, tmp_path: Path) -> None:
    def planned(options: ExportOptions = ExportOptions()) -> tuple[int, bool]:  # noqa: B008
        plan = pipeline.Export(registry.GAN, CHECKPOINT, tmp_path / "models", options).plan
        return plan.version, plan.exists

    shutil.copytree(tiny_repository, tmp_path / "models")
    assert planned() == (1, True)
    assert planned(ExportOptions(graph=GraphOptions(lowering=False))) == (2, False)
    assert planned(ExportOptions(graph=GraphOptions("fp16"))) == (2, False)
    assert planned(ExportOptions(version=5)) == (5, False)
    assert planned(ExportOptions(version=1)) == (1, True)
    with pytest.raises(UsageError, match="--keep 0"):
        planned(ExportOptions(keep=0))
    (tmp_path / "models/gomin_gan/4").mkdir()
    assert planned(ExportOptions(keep=1)) == (5, False)  # version 1 would be dropped: a way back to an old checkpoint
    said: list[str] = []
    pipeline.export("gan", CHECKPOINT, tmp_path / "models", say=said.append)
    assert said[1].endswith("nothing to export; but version 4 is newer: --version 5 makes it the newest again"), said
    (tmp_path / "models/gomin_gan/4").rmdir()
    for file in ("reference.npz", "parity.json", "model.onnx"):
        path = tmp_path / "models/gomin_gan/1" / file
        intact = path.read_bytes()
        path.write_bytes(intact[:-2])
        assert planned() == (2, False), file
        path.write_bytes(intact)
    assert planned() == (1, True)


class TestTarget:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"graph": GraphOptions(precision="fp16", target="cpu")},
            {"graph": GraphOptions(lowering=False, target="cpu")},
            {"graph": GraphOptions(target="tpu")},
            {"graph": GraphOptions(target="cpu"), "deployment": Deployment(instance_kind="gpu")},
            {"graph": GraphOptions(target="cpu"), "deployment": Deployment(accelerator="tensorrt")},
        ],
    )
    def test_for_cpus_excludes_options_for_gpus(self, wrong: dict[str, object]) -> None:
        with pytest.raises(UsageError, match="--target"):
            ExportOptions(**wrong)  # type: ignore[arg-type]

    def test_for_cpus_takes_an_accelerator_for_cpus(self) -> None:
        ExportOptions(graph=GraphOptions(target="cpu"), deployment=Deployment(accelerator="openvino"))


def test_a_gan_has_no_sampling_chain(tmp_path: Path) -> None:
    options = ExportOptions(deployment=Deployment(tile_frames=99))

    with pytest.raises(UsageError, match="gan models have no sampling chain"):
        pipeline.Export(registry.GAN, CHECKPOINT, tmp_path / "models", options)


def test_a_version_number_has_a_limit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--version 99999999999: expected 1 to 2147483647"):
        pipeline.Export(registry.GAN, CHECKPOINT, tmp_path / "models", ExportOptions(version=99999999999))
