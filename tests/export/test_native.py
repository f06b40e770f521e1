"""`gomin-export gan --target native`: its options, its records, and their verification."""

from __future__ import annotations

import json
import re
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from gomin_client.contract.model import Provenance
from gomin_client.errors import UsageError
from gomin_client.native import library
from gomin_client.native.library import OperatorLibrary
from gomin_export.cli import app
from gomin_export.onnx import operators
from gomin_export.onnx.forms import GraphOptions
from gomin_export.plan import ExportOptions
from gomin_export.repository.config import Deployment, with_provenance, without_provenance
from tests.libraries import needing
from tests.support import SHARED_GAN, assert_fails, invoke

EXPORT = ("gan", "--ckpt", SHARED_GAN, "--threads", "1")
LINE = 'model_operations { op_library_filename: "libgomin_ops.so" }\n'


@pytest.mark.parametrize(
    ("graph", "deployment", "words"),
    [
        ({"precision": "fp16"}, {}, "--precision fp16: CPUs compute in float32"),
        ({"lowering": False}, {}, "--no-lowering: this form is a lowering"),
        ({}, {"instance_kind": "gpu"}, "--instance-kind gpu: GPUs are faster with --target any"),
        ({}, {"accelerator": "tensorrt"}, "--accelerator tensorrt"),
        ({}, {"accelerator": "openvino"}, "--accelerator openvino: OpenVINO has operators of its own"),
    ],
)
def test_what_it_cannot_be_combined_with(graph: dict[str, object], deployment: dict[str, object], words: str) -> None:
    options = GraphOptions(target="native", **graph)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"--target native cannot be combined with {words}"):
        ExportOptions(graph=options, deployment=Deployment(**deployment))  # type: ignore[arg-type]


def test_an_export_needs_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "DIRECTORY", tmp_path)

    result = invoke(app, *EXPORT, "--target", "native", "--repository", tmp_path / "models")

    words = "--target native needs the operators gomin 1, and this installation of gomin-triton has no library of them"
    assert_fails(result, 2, words, "or export the checkpoint with --target cpu (GAN) or any (diffusion)")
    (tmp_path / "libgomin_ops.so").write_bytes(b"")
    described = {"operators": "gomin 9", "sha256": sha256(b"").hexdigest()}
    (tmp_path / "libgomin_ops.json").write_text(json.dumps(described))
    result = invoke(app, *EXPORT, "--target", "native", "--repository", tmp_path / "models")
    assert_fails(result, 2, "has gomin 9: reinstall gomin-triton; in a clone, python native/build.py is enough")
    assert not (tmp_path / "models").exists()


def test_the_record_names_the_library(native_repository: Path, operator_library: OperatorLibrary) -> None:
    files = native_repository / "gomin_gan/1"
    record = json.loads((files / "parity.json").read_text())

    assert record["passed"]
    assert operator_library.operators == operators.OPERATORS  # native/build.py has the version too
    assert (record["operators"], record["operators_sha256"]) == ("gomin 1", operator_library.sha256)
    assert record["recipe"]["operators"] == {"set": "gomin 1", "library_sha256": operator_library.sha256}
    assert record["files"]["libgomin_ops.so"] == operator_library.sha256
    assert (files / "libgomin_ops.so").read_bytes() == operator_library.path.read_bytes()
    for other in ("gomin_mel", "gomin_reconstruct"):
        assert "operators" not in json.loads((native_repository / other / "1/parity.json").read_text())
        assert LINE not in (native_repository / other / "config.pbtxt").read_text()


def test_verify_without_the_library_compares_the_other_models(
    native_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "DIRECTORY", tmp_path)

    result = invoke(app, "verify", "--repository", native_repository)

    assert_fails(result, 4, "gomin_gan version 1: runs: ", "has no library of them")
    assert re.search(r"gomin_mel version 1: (\d+) of \1 cases passed", result.stdout)


def test_the_same_export_is_found_unless_the_library_is_another(
    native_repository: Path, operator_library: OperatorLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(*options: str) -> str:
        result = invoke(app, *EXPORT, "--repository", native_repository, "--dry-run", *options)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert "gomin_gan/1: is there already, by the same recipe" in planned("--target", "native")
    cpu = planned("--target", "cpu")
    assert "gomin_gan/2: would be made" in cpu
    assert LINE in cpu  # for version 1

    content = operator_library.path.read_bytes() + b"\0"
    digest = library.hashlib.sha256(content).hexdigest()
    (tmp_path / "libgomin_ops.so").write_bytes(content)
    (tmp_path / "libgomin_ops.json").write_text(json.dumps({"operators": "gomin 1", "sha256": digest}))
    monkeypatch.setattr(library, "DIRECTORY", tmp_path)
    assert "gomin_gan/2: would be made" in planned("--target", "native")


def test_config_names_the_library_while_a_version_needs_it() -> None:
    plain, own = Provenance("aa"), Provenance("aa", operators="gomin 1", operators_sha256="bb")
    text = 'name: "m"\n'

    both = with_provenance(text, {1: plain, 2: own})

    assert both.count(LINE) == 1
    assert with_provenance(both, {1: plain, 2: own}) == both
    assert without_provenance(both) == text
    assert LINE not in with_provenance(both, {1: plain})
    edited = both.replace("libgomin_ops.so", "/opt/ops/libgomin_ops.so")
    assert with_provenance(edited, {2: own}).count("model_operations") == 1
    assert "/opt/ops/libgomin_ops.so" in with_provenance(edited, {2: own})
    in_one_line = 'name: "m", model_operations { op_library_filename: "/opt/ops/libgomin_ops.so" }\n'
    assert with_provenance(in_one_line, {2: own}).count("model_operations") == 1


def test_a_config_with_other_libraries_must_name_this_one_too(native_repository: Path, tmp_path: Path) -> None:
    config = tmp_path / "models/gomin_gan/config.pbtxt"
    shutil.copytree(native_repository, tmp_path / "models")
    text = config.read_text()
    plan = (*EXPORT, "--repository", tmp_path / "models", "--target", "native", "--dry-run")

    config.write_text(text.replace(LINE, 'model_operations { op_library_filename: "others.so" }\n'))
    refused = invoke(app, *plan)
    replaced = invoke(app, *plan, "--overwrite-config")
    both = 'model_operations {\n op_library_filename: "others.so"\n op_library_filename: "/ops/libgomin_ops.so"\n}\n'
    config.write_text(text.replace(LINE, both))
    named = invoke(app, *plan)

    assert refused.returncode == 1
    assert (
        "config.pbtxt: its model_operations do not name libgomin_ops.so, which has the operators gomin 1 that this "
        'version needs: add op_library_filename: "libgomin_ops.so" to them, or give --overwrite-config\n'
    ) in refused.stderr
    assert replaced.returncode == named.returncode == 0, replaced.stderr + named.stderr


def test_verify(native_repository: Path, tmp_path: Path) -> None:
    passed = invoke(app, "verify", "--repository", native_repository, "--model", "gan")
    home = Path(shutil.copytree(native_repository, tmp_path / "models"))
    (home / "gomin_gan/1/libgomin_ops.so").write_bytes(b"another")
    another = invoke(app, "verify", "--repository", home, "--model", "gan")
    needing(home, "gomin 2")
    newer = invoke(app, "verify", "--repository", home, "--model", "gan")

    assert passed.returncode == 0, passed.stdout
    assert_fails(another, 4, "libgomin_ops.so: is not the file that was exported")
    assert another.stdout.count(" FAIL") == 1  # and the outputs are right: it is not loaded
    assert newer.returncode == 4
    assert (
        "needs the operators gomin 2, and the library of this installation of gomin-triton has gomin 1" in newer.stdout
    )
