"""Disks that are full, files that cannot grow, repositories that are read-only: errors, and no debris."""

import gc
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest

from gomin_client.contract.repository import versions
from gomin_export.cli import app
from gomin_export.errors import RepositoryError
from gomin_export.parity import record
from gomin_export.parity.gate import Case, Expected
from tests.export.placing import use_model
from tests.export.repository.test_place import GAN, place
from tests.support import SHARED_GAN, invoke

ExportResult = subprocess.CompletedProcess[str]
Export = Callable[[Path, AbstractContextManager[object]], ExportResult]


def debris(home: Path) -> list[str]:
    """The files beside the repository, where models are staged."""
    return [path.name for path in home.parent.iterdir() if path != home]


@pytest.fixture
def export_into(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    """Export the shared GAN, whose file is the largest, into a repository that has its front end already."""
    use_model(monkeypatch, repository / "gomin_gan/1/model.onnx")

    def export(home: Path, limits: AbstractContextManager[object]) -> ExportResult:
        shutil.copytree(repository / "gomin_mel", home / "gomin_mel")
        with limits:
            return invoke(app, "gan", "--ckpt", SHARED_GAN, "--repository", home)

    return export


def assert_nothing_was_placed(result: ExportResult, home: Path, named: str, words: str) -> None:
    assert result.returncode == 1, result.stderr
    assert re.fullmatch(rf"gomin-export: \S+/{named}: {words}", result.stderr.splitlines()[-1])
    assert "Traceback" not in result.stderr
    assert [path.name for path in home.iterdir()] == ["gomin_mel"]
    assert debris(home) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a small file system")
@pytest.mark.parametrize(
    ("fronts", "named"),
    [(1.5, r"\.models\.staging-\w+/gomin_mel/1/[\w.]+"), (2.5, r"\.models\.staging-\w+/gomin_gan/1/model\.onnx")],
)
def test_a_full_disk_gives_an_error_and_leaves_no_debris(
    export_into: Export, repository: Path, tmp_path: Path, fronts: float, named: str
) -> None:
    """A real file system, with room for the front end and a part of its copy in the staging directory, or of the GAN.

    `fronts`: the room, divided by the size of the front end.
    """
    size = sum(path.stat().st_size for path in (repository / "gomin_mel").rglob("*") if path.is_file())
    with small_disk(tmp_path, int(fronts * size)) as disk:
        result = export_into(disk / "models", nullcontext())
        assert_nothing_was_placed(result, disk / "models", named, "No space left on device")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a small file system")
def test_a_full_disk_that_onnx_runtime_does_not_report(export_into: Export, repository: Path, tmp_path: Path) -> None:
    """Its profile is cut off. There is room for two front ends, and for 8 KiB beyond the GAN's own files."""
    files = [*(repository / "gomin_mel").rglob("*.*")] * 2
    files += [repository / "gomin_gan/config.pbtxt", repository / "gomin_gan/1/model.onnx"]
    room = sum(-(-path.stat().st_size // 4096) * 4096 for path in files) + 8192
    with small_disk(tmp_path, room) as disk:
        result = export_into(disk / "models", nullcontext())
        words = "ONNX Runtime did not write it to its end: the disk may be full"
        named = r"\.models\.staging-\w+/gomin_gan/1/profile\S+\.json"
        assert_nothing_was_placed(result, disk / "models", named, words)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a small file system")
def test_recorded_cases_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One error that names the file: nothing else is printed when Python frees the archive."""
    ignored: list[sys.UnraisableHookArgs] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    samples = np.random.default_rng(0).normal(size=(1, 1, 40_000)).astype(np.float32)
    case = Case.known("noise", {"mel": samples}, Expected(samples, 0.0))
    with small_disk(tmp_path, 100_000) as disk:
        with pytest.raises(RepositoryError, match=r"/disk/reference\.npz: No space left on device$"):
            record.write_vectors(disk, [case])
        gc.collect()
    assert ignored == []


@contextmanager
def small_disk(home: Path, size: int) -> Iterator[Path]:
    """A file system of this size; skips the test if it cannot be mounted."""
    disk = home / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("not allowed to mount")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As a quota would have it, for this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_cannot_grow_gives_an_error_and_leaves_no_debris(export_into: Export, tmp_path: Path) -> None:
    home = tmp_path / "models"

    result = export_into(home, no_file_above(1_000_000))

    named = r"\.models\.staging-\w+/gomin_gan/1/model\.onnx"
    assert_nothing_was_placed(result, home, named, "File too large")


def test_a_read_only_repository_gives_an_error_and_leaves_no_debris(tmp_path: Path) -> None:
    home = tmp_path / "models"
    place(home, [GAN], "aa")
    mount = ["mount", "--bind", "-o", "ro", tmp_path, tmp_path]
    if os.geteuid() == 0:  # whom permissions do not stop
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("not allowed to mount")
    else:
        tmp_path.chmod(0o500)
    try:
        with pytest.raises(
            RepositoryError, match=r"models: cannot be written to: no permission .* or its file system is read-only"
        ):
            place(home, [GAN], "bb")
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", tmp_path], check=True)
        else:
            tmp_path.chmod(0o700)

    assert versions(home / "gomin_gan") == [1]
    assert debris(home) == []
