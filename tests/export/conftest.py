"""Tests of the export side import torch. Exports that several modules look at are made once for all test processes."""

from pathlib import Path

import pytest
import torch

from tests.conftest import Once

torch.set_num_threads(1)
torch.set_grad_enabled(False)


@pytest.fixture(scope="session")
def repository_for_cpus(exported_once: Once) -> Path:
    """The graph for CPUs of a network that is wide enough for Winograd convolutions; not to be changed by a test.

    Its checkpoint is beside it: wide.pt.
    """

    def export(home: Path) -> None:
        from gomin_export.cli import app
        from tests.export.lowering.helpers import wide_gan
        from tests.support import invoke

        checkpoint = home.parent / "wide.pt"
        torch.save(wide_gan().state_dict(), checkpoint)
        exported = invoke(app, "gan", "--ckpt", checkpoint, "--repository", home, "--target", "cpu")
        assert exported.returncode == 0, exported.stderr
        assert "already there" not in exported.stderr

    return exported_once("cpu", export)
