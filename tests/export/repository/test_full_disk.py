"""Disks that are full, files that cannot grow, repositories that are read-only: errors, and no debris."""

import os
import subprocess
from pathlib import Path

import pytest

from gomin_client.contract.repository import versions
from gomin_export.cli import app
from gomin_export.errors import RepositoryError
from tests.export.repository.test_place import GAN, place
from tests.support import GOLDEN, invoke, run

pytestmark = pytest.mark.slow


def debris(home: Path) -> list[str]:
    """The files beside the repository, where models are staged."""
    return [path.name for path in home.parent.iterdir() if path != home]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a small file system")
def test_a_full_disk_gives_an_error_and_leaves_no_debris(tmp_path: Path) -> None:
    """A real file system of 200 kB, through the command line."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("not allowed to mount")
    try:
        result = invoke(app, "gan", "--ckpt", GOLDEN / "gan_v3.pt", "--repository", disk / "models")
        left = list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].endswith("No space left on device")
    assert "Traceback" not in result.stderr
    assert left == []


def test_a_file_that_cannot_grow_gives_an_error_and_leaves_no_debris(tmp_path: Path) -> None:
    """As a quota would have it: files of at most 100 kB."""
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
        "import gomin_export.cli as cli; cli.main()"
    )
    home = tmp_path / "models"

    result = run("python", "-c", program, "gan", "--ckpt", GOLDEN / "gan_v3.pt", "--repository", home)

    assert result.returncode == 1
    assert "File too large" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


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
