"""Exported models load on the ONNX Runtime of Triton 24.10's native onnxruntime backend, 1.19.2, and compute the same.

That version accepts IR versions up to 10 and opsets up to 21. The exports keep to opset 20.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from gomin_export.onnx import export as onnx_export
from gomin_export.parity import gate, record
from tests.support import environment

ONNXRUNTIME = "1.19.2"

# Runs in the other environment: the recorded inputs of a version directory → its outputs.
PROGRAM = """
import sys, numpy, onnxruntime
files, output = sys.argv[1:]
assert onnxruntime.__version__ == VERSION, onnxruntime.__version__
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
for library in LIBRARIES:
    options.register_custom_ops_library(library)
session = onnxruntime.InferenceSession(files + "/model.onnx", options, providers=["CPUExecutionProvider"])
with numpy.load(files + "/reference.npz") as recorded:
    answers = []
    while f"{len(answers)}.name" in recorded:
        prefix = f"{len(answers)}.input."
        inputs = {name[len(prefix):]: recorded[name] for name in recorded if name.startswith(prefix)}
        (answer,) = session.run(None, inputs)
        answers.append(answer)
numpy.savez(output, *answers)
"""


def models_of(repository: Path) -> Iterator[Path]:
    """The version directories of the models that ONNX Runtime runs."""
    yield from sorted(path.parent for path in repository.glob("*/1/model.onnx"))


def check_format(path: Path, *domains: str) -> None:
    proto = onnx.load(path, load_external_data=False)
    functions = [node for function in proto.functions for node in function.node]

    assert proto.ir_version <= 10
    opsets = {opset.domain: opset.version for opset in proto.opset_import}
    assert opsets.keys() == {"", *domains}
    assert 1 <= opsets[""] <= 20
    assert {node.domain for node in (*proto.graph.node, *functions)} == {"", *domains}


def test_models_keep_to_its_formats(repository: Path) -> None:
    models = list(models_of(repository))

    assert {"gomin_gan", "gomin_denoiser"} <= {files.parent.name for files in models}
    for files in models:
        check_format(files / onnx_export.MODEL_FILE)


@pytest.fixture(scope="module")
def python() -> Path:
    """The Python of an environment with that ONNX Runtime; running a model needs numpy beside it."""
    packages = [f"onnxruntime=={ONNXRUNTIME}", f"numpy=={np.__version__}"]
    return environment("onnxruntime", packages, "--no-deps")


def check_answers(python: Path, files: Path, output: Path, *libraries: str) -> None:
    """The answers of that ONNX Runtime to the recorded inputs pass the gate of the export.

    `libraries`: of operators, with names that the system looks up in the version directory.
    """
    command = [python, "-c", f"VERSION, LIBRARIES = {ONNXRUNTIME!r}, {libraries!r}\n{PROGRAM}", files, output]
    env = {**os.environ, "LD_LIBRARY_PATH": str(files)} if libraries else None
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert result.returncode == 0, result.stderr
    with np.load(output) as file:
        answers = [file[name] for name in file.files]
    cases = record.read_vectors(files)
    left = iter(answers)

    outcomes = gate.compare(lambda _: next(left), cases)

    tolerance = record.read_report(files).tolerance
    assert len(answers) == len(cases)
    assert [outcome for outcome in outcomes if not outcome.passes(tolerance)] == []


@pytest.mark.slow
def test_models_compute_the_same_there(python: Path, repository: Path, tmp_path: Path) -> None:
    for files in models_of(repository):
        check_answers(python, files, tmp_path / f"{files.parent.name}.npz")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["repository_for_cpus", "float16_repository"])
def test_other_forms_compute_the_same_there(
    form: str, python: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The graph for CPUs of a network that is wide enough for Winograd convolutions, and float16."""
    files = request.getfixturevalue(form) / "gomin_gan/1"

    check_format(files / onnx_export.MODEL_FILE)
    check_answers(python, files, tmp_path / "answers.npz")


def test_operators_of_our_own_work_there(python: Path, native_repository: Path, tmp_path: Path) -> None:
    """With the library that the export has placed beside the model, found by the name in config.pbtxt."""
    files = native_repository / "gomin_gan/1"

    check_format(files / onnx_export.MODEL_FILE, "gomin")
    check_answers(python, files, tmp_path / "answers.npz", "libgomin_ops.so")
