"""The library of our own operators on a server: where it comes from, and what is refused."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gomin_client.native.library import OperatorLibrary
from gomin_client.transports.registry import connect
from gomin_export.cli import app as gomin_export
from gomin_server import operators
from gomin_server.installation import NativeServer, PipServer, SetupError
from gomin_server.operators import find_library
from gomin_server.workspace import workspace
from tests.libraries import evil_library, needing
from tests.support import ROOT, UNPROBED, invoke, serving


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the library in another installation of the client, empty."""
    home = tmp_path / "packages/gomin_client"
    (home / "native").mkdir(parents=True)
    (home / "__init__.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.delitem(sys.modules, "gomin_client")  # whose origin would be found
    monkeypatch.syspath_prepend(home.parent)
    return home / "native"


def put(home: Path, content: bytes = b"library", digest: str = "") -> None:
    (home / operators.LIBRARY_FILE).write_bytes(content)
    described = {"operators": "gomin 1", "sha256": digest or sha256(content).hexdigest()}
    (home / operators.DESCRIPTION_FILE).write_text(json.dumps(described))


class Options:
    """In the place of session options: what was registered."""

    failure = ""

    def __init__(self) -> None:
        self.registered: list[str] = []

    def register_custom_ops_library(self, path: str) -> None:
        if self.failure:
            raise RuntimeError(self.failure)
        self.registered.append(path)


def backend_model(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model "m" of the backend in a directory, without a server; Triton's module has only what is used."""
    triton: Any = ModuleType("triton_python_backend_utils")
    triton.TritonModelException = ValueError
    triton.Logger = type("Logger", (), {"log_info": print})
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton)
    model = runpy.run_path(str(home / "model.py"))["TritonPythonModel"]()
    model.name = "m"
    return model


def test_the_library_is_the_installed_one(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/lib/other")
    native = NativeServer(tmp_path / "tritonserver", tmp_path)
    assert find_library() is None
    with workspace(native, ["models"], print) as space:
        assert "LD_LIBRARY_PATH" not in space.environment

    put(package)
    found = find_library()
    assert found is not None
    assert (found.directory, found.files[operators.LIBRARY_FILE]) == (package, b"library")
    for repository in ("models", "with a space"):
        with workspace(native, [repository], print) as space:
            assert space.environment["LD_LIBRARY_PATH"] == f"/usr/lib/other:{package}"

    for digest in ("0" * 64, "null"):
        put(package, digest=digest)
        with pytest.raises(SetupError, match=r"libgomin_ops\.so: is not the library that .*: reinstall gomin-triton"):
            find_library()


def test_models_that_need_a_library_that_is_not_there(package: Path, tmp_path: Path) -> None:
    for name, version in (("gomin_gan", "gomin.operators.2"), ("gomin_mel", "gomin.sample_rate")):
        (tmp_path / "models" / name).mkdir(parents=True)
        parameter = f'parameters {{ key: "{version}" value: {{ string_value: "gomin 1" }} }}'
        (tmp_path / "models" / name / "config.pbtxt").write_text(parameter)
    models, root = str(tmp_path / "models"), tmp_path / "tritonserver"
    server = PipServer(root, ())
    for directory in (root / "backends/python", server.stub.parent):
        directory.mkdir(parents=True)
    server.stub.write_bytes(b"stub")
    said: list[str] = []

    with workspace(server, [models], said.append), workspace(NativeServer(root, tmp_path), [models], said.append):
        pass  # the native backend can find a library elsewhere
    put(package, digest="0" * 64)
    with workspace(server, [models], said.append):
        pass

    ends = "gomin_gan cannot be loaded, with --target native, and Triton ends, unless --exit-on-error=false lets it"
    assert len(said) == 2
    assert said[0].startswith(f"this installation has no library of operators: {ends}")
    assert f"reinstall gomin-triton; until then, {ends}" in said[1]


def test_a_library_that_cannot_be_used_does_not_stop_the_server(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(package, digest="0" * 64)
    said: list[str] = []
    with workspace(NativeServer(tmp_path / "tritonserver", tmp_path), ["models"], said.append) as space:
        assert "LD_LIBRARY_PATH" not in space.environment
    (line,) = said
    assert "libgomin_ops.so: is not the library" in line
    assert line.endswith("; until then, models that were exported with --target native cannot be loaded")

    put(package)
    other = Path(shutil.copytree(package.parent, tmp_path / "a:b/gomin_client"))
    found = operators.OperatorLibrary(other / "native", {})
    monkeypatch.setattr(operators, "find_library", lambda: found)
    with workspace(NativeServer(tmp_path / "tritonserver", tmp_path), ["models"], said.append) as space:
        assert "LD_LIBRARY_PATH" not in space.environment
    assert f"{other / 'native'}: its path has ':' or ';', which LD_LIBRARY_PATH cannot contain" in said[1]


def test_the_backend_gets_a_copy(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(package)
    root, temporary = tmp_path / "tritonserver", tmp_path / "temporary"
    server = PipServer(root, ())
    for directory in (root / "backends/python", server.stub.parent, temporary):
        directory.mkdir(parents=True)
    server.stub.write_bytes(b"stub")
    monkeypatch.setenv("TMPDIR", str(temporary))

    with workspace(server, [str(tmp_path)], print) as space:
        assert "LD_LIBRARY_PATH" not in space.environment
        backend = Path(space.arguments[0].partition("=")[2]) / "onnxruntime"
        assert (backend / operators.LIBRARY_FILE).read_bytes() == b"library"
        assert (backend / operators.DESCRIPTION_FILE).read_bytes() == (
            package / operators.DESCRIPTION_FILE
        ).read_bytes()

    put(package, digest="0" * 64)
    said: list[str] = []
    with workspace(server, [str(tmp_path)], said.append) as space:
        backend = Path(space.arguments[0].partition("=")[2]) / "onnxruntime"
        assert not (backend / operators.LIBRARY_FILE).exists()
        (reason,) = json.loads((backend / operators.DESCRIPTION_FILE).read_bytes()).values()
        monkeypatch.setattr(Options, "failure", "no library may be registered")
        with pytest.raises(ValueError, match="model m: it needs the operators gomin 1") as refused:
            backend_model(backend, monkeypatch)._register_operators({}, "gomin 1", Options())
    assert str(refused.value).endswith(reason)
    library = package / operators.LIBRARY_FILE
    assert reason == f"{library}: is not the library that this installation was built with: reinstall gomin-triton"
    assert said[0].startswith(reason)


def test_what_the_backend_loads_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "gomin_server/backends/onnxruntime/model.py", tmp_path)
    model = backend_model(tmp_path, monkeypatch)

    def register(needed: str | None, *named: str) -> list[str]:
        options = Options()
        model._register_operators({"model_operations": {"op_library_filename": list(named)}}, needed, options)
        return options.registered

    assert register(None) == []
    with pytest.raises(
        ValueError, match=r"model m: it needs the operators gomin 1, and the installation .* --keep 1: "
    ):
        register("gomin 1", "libgomin_ops.so")
    monkeypatch.setattr(Options, "failure", "Failed to load library\n libc.so.6")
    put(tmp_path)
    with pytest.raises(ValueError, match=r"cannot load the operator library .* \(Failed to load library libc\.so\.6\)"):
        register("gomin 1", "libgomin_ops.so")
    monkeypatch.setattr(Options, "failure", "")
    ours = [str(tmp_path / operators.LIBRARY_FILE)]
    assert register("gomin 1", "libgomin_ops.so") == register("gomin 1", "/models/libgomin_ops.so") == ours
    assert register(None, "libgomin_ops.so") == []  # another version of the model needs it
    with pytest.raises(ValueError, match=r"it needs the operators gomin 2, and the library .* has gomin 1: install"):
        register("gomin 2", "libgomin_ops.so")
    with pytest.raises(ValueError, match=r"op_library_filename is '/models/a\.so' in config\.pbtxt: only the native"):
        register("gomin 1", "libgomin_ops.so", "/models/a.so")


@pytest.mark.server
def test_a_server_runs_the_model_and_loads_no_library_of_the_repository(
    native_repository: Path, operator_library: OperatorLibrary, tmp_path: Path
) -> None:
    evil, mark = evil_library(tmp_path)
    home = Path(shutil.copytree(native_repository, tmp_path / "models"))
    shutil.copyfile(evil, home / "gomin_gan/1/libgomin_ops.so")
    needing(home, library=str(evil))
    mel = {"mel": np.random.default_rng(0).uniform(0, 1.2, (2, 128, 20)).astype(np.float32)}

    with serving(home, tmp_path / "log", UNPROBED) as server:
        with connect(server.grpc) as remote, connect(f"local:{native_repository}") as local:
            answer = remote.infer("gomin_gan", 1, mel)["audio"]
            expected = local.infer("gomin_gan", 1, mel)["audio"]
        verified = invoke(gomin_export, "verify", "--url", server.grpc, "--repository", native_repository)
        (stub,) = _stubs_of(server.process.pid, "/gomin_gan/")
        loaded = Path(f"/proc/{stub}/maps").read_text()

    np.testing.assert_array_equal(answer, expected)
    assert verified.returncode == 0, verified.stdout
    assert not mark.exists()
    assert "/onnxruntime/libgomin_ops.so" in loaded
    assert str(home) not in loaded
    assert "operators gomin 1, from the library of this installation" in (tmp_path / "log").read_text()


def _stubs_of(launcher: int, model: str) -> list[int]:
    from tests.server.processes import descendants

    commands = {process: Path(f"/proc/{process}/cmdline").read_text() for process in descendants(launcher)}
    return [number for number, text in commands.items() if "python_backend_stub" in text and model in text]
