"""Files that appear complete or not at all."""

import os
import stat
from pathlib import Path

import pytest

from gomin_client.files.atomic import atomic_write


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail_half_way() -> None:
        with atomic_write(path) as part:
            part.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a.txt") as part:
            part.write_text("new")
    finally:
        os.umask(old)

    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640
