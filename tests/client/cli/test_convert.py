"""`gomin-client convert`: GOMIN's own forms, through a real server."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from gomin_client.cli.main import app
from tests.support import ROOT, RunningServer, assert_fails, invoke

FORMS = re.findall(
    r"^\| `(gomin-client convert .*?)` \| (.*?) \|$", (ROOT / "docs/client.md").read_text(), re.MULTILINE
)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_table_is_found() -> None:
    assert len(FORMS) == 15


@pytest.mark.parametrize(("command", "makes"), FORMS)
def test_every_form_of_gomins_own_program(tree: Path, server: RunningServer, command: str, makes: str) -> None:
    before = files(tree)
    env = {"GOMIN_URL": None if "--n_mels" in command else server.grpc}

    result = invoke(app, *shlex.split(command)[1:], env=env)

    assert result.returncode == 0, result.stderr
    assert files(tree) - before == set(makes.split())
    for name in makes.split():
        if name.endswith(".pt"):
            content = torch.load(tree / name, weights_only=True)
            assert content["n_mels"] == content["melspec"].shape[1] == (80 if "--n_mels" in command else 128)
        else:
            assert soundfile.info(tree / name).samplerate == 24000
            assert np.abs(soundfile.read(tree / name)[0]).max() > 0


def test_what_gomins_program_takes_and_ours_does_not_is_answered(tree: Path) -> None:
    convert = ("convert", "-m", "gan", "-i", "a.wav", "-o", "x.wav")
    assert_fails(invoke(app, *convert, "-p", "checkpoints/"), 2, "gomin-export gan --ckpt", "--url local:DIRECTORY")
    assert_fails(invoke(app, *convert, "-d", "0"), 2, "choose the server with --url")
    assert_fails(invoke(app, "convert", "-i", "mel.pt", "-o", "x.pt"), 2, "both are mel files")
    assert_fails(invoke(app, "convert", "-i", "a.wav", "b.wav", "-o", "x.wav"), 2, "2 inputs and 1 outputs")
