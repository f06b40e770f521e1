"""Signals during an export: real processes that receive them where a library does what it wants with exceptions."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import GOLDEN

pytestmark = pytest.mark.long

# {place} is called without the signal, too: the export takes a model that is there, which saves it tracing.
PROGRAM = """
import os, signal, sys
from pathlib import Path
import onnx
from gomin_export import cli
from gomin_export.onnx import export
from gomin_export.parity import record

def trace(form, path, metadata):
    model = onnx.load({model!r})
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    export._save(model, path)

export.write = trace
called = {place}

def interrupted(*arguments):
    if {when}:
        try:
            os.kill(os.getpid(), signal.{name})
        except BaseException:
            {library}
    called(*arguments)

{place} = interrupted
cli.main()
"""
TRACING = ("export.write", "True")
LAST_FILE = ("record.write_report", "arguments[0].parent.name == 'gomin_reconstruct'")  # after all cases have passed


@pytest.mark.parametrize(
    ("number", "place", "library"),
    [
        (signal.SIGINT, TRACING, "raise RuntimeError('Error calling __set_name__')"),
        (signal.SIGTERM, TRACING, "pass"),
        (signal.SIGINT, LAST_FILE, "pass"),
        (signal.SIGHUP, TRACING, "raise"),
    ],
)
def test_an_interrupted_export_places_nothing_and_leaves_nothing(
    tiny_repository: Path, tmp_path: Path, number: signal.Signals, place: tuple[str, str], library: str
) -> None:
    model = str(tiny_repository / "gomin_gan/1/model.onnx")
    program = PROGRAM.format(model=model, place=place[0], when=place[1], name=number.name, library=library)
    command = [
        sys.executable,
        "-c",
        program,
        "gan",
        "--ckpt",
        GOLDEN / "gan_v3.pt",
        "--repository",
        tmp_path / "models",
    ]

    result = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )

    assert result.returncode == 128 + number, result.stderr
    assert result.stderr.splitlines()[-1] == "gomin-export: interrupted; nothing was placed"
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
