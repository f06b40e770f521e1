"""Staging: leftovers, exports that wait for one another, and repositories that are mount points."""

import os
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gomin_client import Connection
from gomin_client.contract.repository import versions
from gomin_client.errors import GominError
from gomin_client.vocoder import Vocoder
from gomin_export import pipeline
from gomin_export.errors import RepositoryError
from gomin_export.networks import registry
from gomin_export.onnx.forms import GraphOptions
from gomin_export.plan import ExportOptions
from gomin_export.repository.staging import copy_tree, is_mount_point, locked, staging, transferred, turn
from tests.export.placing import use_model
from tests.export.repository.test_place import DENOISER, DIFFUSION, GAN, place
from tests.support import GOLDEN, RunningServer, serving


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A model repository that is a mount point, on a file system of its own."""
    home = tmp_path / "my models"
    home.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", home], check=False, capture_output=True).returncode:
        pytest.skip("not allowed to mount")
    yield home
    subprocess.run(["umount", "--lazy", home], check=True)


def wait_until(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def everything(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*")}


def test_what_a_killed_export_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    home = tmp_path / "models"
    (tmp_path / ".models.staging-dead").mkdir()

    with staging(home) as first, staging(home) as second:
        assert {path.name for path in tmp_path.iterdir()} == {first.name, second.name}


def test_everything_is_on_the_disk_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "models"
    synced: set[tuple[int, int]] = set()
    rename = Path.rename
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.add((os.fstat(handle).st_dev, os.fstat(handle).st_ino))
        fsync(handle)

    def checked(self: Path, target: Path) -> Path:
        for path in [self, *self.rglob("*")]:
            assert (path.stat().st_dev, path.stat().st_ino) in synced, path
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "rename", checked)
    place(home, [DENOISER, DIFFUSION], "aa")
    place(home, [DENOISER, DIFFUSION], "bb")

    for path in [*home.rglob("config.pbtxt"), home, home / "gomin_diffusion"]:
        assert (path.stat().st_dev, path.stat().st_ino) in synced, path


def test_exports_that_remove_versions_wait_for_one_another(tmp_path: Path) -> None:
    homes = [tmp_path / "gomin_denoiser", tmp_path / "gomin_diffusion", tmp_path / "missing"]
    for home in homes[:2]:
        home.mkdir()
    said: list[str] = []
    entered = threading.Event()

    def second() -> None:
        with turn(homes, said.append) as waited:
            assert waited
            entered.set()

    with turn(homes, said.append) as waited:
        assert not waited
        thread = threading.Thread(target=second)
        thread.start()
        wait_until(lambda: bool(said))
        assert not entered.is_set()
    thread.join(timeout=120)

    assert entered.is_set()
    assert said == ["waiting for another export that removes versions of gomin_denoiser"]


def test_an_export_that_waited_is_planned_again(
    tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "models"
    shutil.copytree(tiny_repository, home)
    use_model(monkeypatch, tiny_repository / "gomin_gan/1/model.onnx")
    said: list[str] = []
    options = ExportOptions(graph=GraphOptions(lowering=False), keep=1)
    export = pipeline.Export(registry.get("gan"), GOLDEN / "gan_v3.pt", home, options, said.append)
    dropped = {"gomin_mel": [], "gomin_gan": [1], "gomin_reconstruct": [1]}
    assert (export.plan.version, export.plan.dropped) == (2, dropped)
    failures: list[Exception] = []

    def run() -> None:
        try:
            export.run()
        except GominError as error:
            failures.append(error)

    with locked(home / "gomin_gan"):  # by another export, which makes version 2 and removes version 1
        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: any("waiting" in line for line in said))
        shutil.copytree(home / "gomin_gan/1", home / "gomin_gan/2")
        shutil.rmtree(home / "gomin_gan/1")
    thread.join(timeout=200)

    assert failures == []
    assert versions(home / "gomin_gan") == [3]


def test_a_mount_point_is_told_from_a_directory(mounted: Path) -> None:
    bound = mounted.parent / "bound"
    bound.mkdir()

    assert is_mount_point(mounted)
    assert not is_mount_point(mounted.parent)
    assert not is_mount_point(bound)
    subprocess.run(["mount", "--bind", bound, bound], check=True)
    try:
        assert is_mount_point(bound)
    finally:
        subprocess.run(["umount", bound], check=True)


def test_models_are_placed_in_a_mount_point(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(mounted.parent))
    monkeypatch.setattr("tempfile.tempdir", None)
    (mounted / "gomin_gan").mkdir()
    dead = mounted / "gomin_gan" / ".staging-dead"
    dead.mkdir()

    assert place(mounted, [GAN], "aa") == 1
    assert place(mounted, [DENOISER, DIFFUSION], "bb") == 1
    assert place(mounted, [DENOISER, DIFFUSION], "cc", keep=1) == 2

    files = {"config.pbtxt", "2", "2/model.onnx"}
    expected = {f"{model}/{file}" for model in ("gomin_denoiser", "gomin_diffusion") for file in files}
    expected |= {"gomin_denoiser", "gomin_diffusion", "gomin_gan"}
    expected |= {"gomin_gan/config.pbtxt", "gomin_gan/1", "gomin_gan/1/model.onnx"}
    assert everything(mounted) == expected
    assert [path.name for path in mounted.parent.iterdir()] == [mounted.name]


def test_a_failure_leaves_a_mount_point_as_it_was(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(mounted, [DENOISER], "aa")
    before = everything(mounted)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == mounted / "gomin_diffusion" / "2":
            raise OSError(28, "No space left on device", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(RepositoryError, match="No space left on device"):
        place(mounted, [DENOISER, DIFFUSION], "bb")

    assert everything(mounted) == before


def test_a_copy_that_does_not_fit_leaves_nothing(mounted: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=200k", mounted], check=True)
    staged = tmp_path / "gomin_gan"
    staged.mkdir()
    (staged / "large").write_bytes(bytes(300_000))

    with (
        pytest.raises(RepositoryError, match=r"/gomin_gan/\S+/large: No space left on device$"),
        transferred(mounted, [staged]),
    ):
        pass

    assert everything(mounted) == set()


def test_a_directory_that_cannot_be_copied_is_named(tmp_path: Path) -> None:
    (tmp_path / "source/inner").mkdir(parents=True)
    (tmp_path / "target").mkdir()
    (tmp_path / "target/inner").write_text("a file")

    with pytest.raises(RepositoryError, match=r"target/inner: \[Errno 17\] File exists"):
        copy_tree(tmp_path / "source", tmp_path / "target")


def ready(server: RunningServer) -> bool:
    try:
        with urllib.request.urlopen(f"{server.http}/v2/health/ready", timeout=5):
            return True
    except urllib.error.HTTPError:
        return False


@pytest.mark.server
@pytest.mark.slow
def test_a_server_in_poll_mode_takes_models_that_appear_in_a_mount_point(
    mounted: Path, tiny_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it looks while the first version of a model is copied: that is an error in its log, and no more."""
    use_model(monkeypatch, tiny_repository / "gomin_gan/1/model.onnx")
    polling = ("--model-control-mode=poll", "--repository-poll-secs=1")
    mel = np.zeros((128, 8), np.float32)

    with serving(mounted, mounted.parent / "log", *polling) as server:
        (mounted / "gomin_gan" / ".staging-killed").mkdir(parents=True)
        wait_until(lambda: "Poll failed for model directory 'gomin_gan'" in server.log_text)
        assert ready(server)
        pipeline.export("gan", GOLDEN / "gan_v3.pt", mounted)
        with Vocoder(server.grpc, connection=Connection(wait_s=300)) as vocoder:
            first = vocoder.synthesize(mel, force=True)
        pipeline.export("gan", GOLDEN / "gan_v3.pt", mounted, ExportOptions(version=2, keep=1))
        wait_until(lambda: "successfully unloaded 'gomin_gan' version 1" in server.log_text, timeout_s=300)
        with Vocoder(server.grpc) as vocoder:
            second = vocoder.synthesize(mel, force=True)
            assert vocoder.version == 2
        assert ready(server)

    np.testing.assert_array_equal(first, second)
    assert everything(mounted) >= {"gomin_gan/2/model.onnx"}
    assert not any("staging" in name for name in everything(mounted))
