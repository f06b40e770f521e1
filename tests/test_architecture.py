"""The arrows of the design, held by tests: who may import whom."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support import ROOT

CLIENT = ROOT / "clients" / "gomin_client"
TEMPLATES = sorted((ROOT / "gomin_export" / "templates").rglob("*.py"))
BACKENDS = sorted((ROOT / "gomin_server" / "backends").rglob("*.py"))
SAMPLING = sorted((CLIENT / "sampling").rglob("*.py"))
STANDARD = set(sys.stdlib_module_names)


def imports(path: Path) -> Iterator[str]:
    """Top-level names of all modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if path in SAMPLING and node.level == 1:
                continue  # the package is copied whole, under another name
            assert node.level == 0, f"{path}: relative import"
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("path", sorted(CLIENT.rglob("*.py")), ids=lambda path: str(path.relative_to(CLIENT)))
def test_the_client_never_imports_torch_or_the_export_side(path: Path) -> None:
    forbidden = {"torch", "onnx", "gomin_export", "gomin_gateway", "gomin_server"}
    if path.name in ("mels.py", "torch_files.py"):
        forbidden -= {"torch"}  # for .pt files alone, inside the functions that read and write them
    assert not forbidden & set(imports(path))


PACKAGES = {
    "gomin_client": CLIENT,
    "gomin_gateway": ROOT / "clients" / "gomin_gateway",
    "gomin_export": ROOT / "gomin_export",
    "gomin_server": ROOT / "gomin_server",
    "benchmarks": ROOT / "benchmarks",
}


def modules() -> dict[str, Path]:
    """Name → file of every module of ours."""
    found = {}
    for package, home in PACKAGES.items():
        for path in home.rglob("*.py"):
            parts = [package, *path.relative_to(home).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_when_loaded(name: str, known: dict[str, Path]) -> set[str]:
    """The modules of ours that are imported while a module is loaded: not in functions, not for type checkers alone."""
    path = known[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    waiting: list[ast.AST] = list(ast.parse(path.read_text()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            origin = base if node.level else str(node.module)
            for alias in node.names:
                submodule = f"{origin}.{alias.name}"
                found.add(submodule if submodule in known else origin)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    # a submodule loads the packages that it is in; those that the importing module is in are loaded already
    for module in list(found):
        parts = module.split(".")
        found.update(".".join(parts[:count]) for count in range(1, len(parts)))
    return {module for module in found & known.keys() if not f"{name}.".startswith(f"{module}.")}


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = modules()
    graph = {name: imported_when_loaded(name, known) for name in known}

    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' → '.join(reversed(error.args[1]))}")
    assert order.index("gomin_client.errors") < order.index("gomin_export.errors") < order.index("gomin_export.cli")


def test_mel_files_without_torch_do_not_load_it(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
import numpy as np
from gomin_client.files import mels as mel_files
from gomin_client.mel.features import MelConfig
for extension in (".npz", ".npy"):
    mel_files.write(Path("{tmp_path}/a" + extension), np.zeros((1, 128, 3), np.float32), MelConfig())
    mel_files.read(Path("{tmp_path}/a" + extension))
assert "torch" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "gomin_server").rglob("*.py")), ids=lambda path: path.name)
def test_the_server_imports_nothing_of_ours(path: Path) -> None:
    assert not {"gomin_client", "gomin_export"} & set(imports(path))


@pytest.mark.parametrize("path", [*TEMPLATES, *BACKENDS, *SAMPLING], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_runs_inside_triton_imports_little_and_is_python_3_10(path: Path) -> None:
    allowed = STANDARD | {"numpy", "triton_python_backend_utils", "sampling"}
    if path in BACKENDS:
        allowed |= {"onnxruntime"}
    if path in SAMPLING:
        allowed = STANDARD | {"numpy"}

    assert set(imports(path)) <= allowed
    ast.parse(path.read_text(), feature_version=(3, 10))


def test_templates_and_backends_are_there() -> None:
    assert [path.name for path in (*TEMPLATES, *BACKENDS)] == ["model.py", "model.py"]


def test_the_exported_sampler_is_the_clients_to_the_byte(repository: Path) -> None:
    copy = repository / "gomin_diffusion/1/sampling"

    assert {path.name: path.read_bytes() for path in copy.glob("*.py")} == {
        path.name: path.read_bytes() for path in SAMPLING
    }
    assert len(SAMPLING) == len(list((CLIENT / "sampling").glob("*.py")))  # no subpackages, which would not be copied


@pytest.mark.parametrize("url", ["grpc", "http", "local"], indirect=True)
def test_a_reconstruction_loads_neither_torch_nor_what_it_does_not_use(url: str, tmp_path: Path) -> None:
    program = f"""
import sys
from typer.testing import CliRunner
from gomin_client.cli.main import app
assert not {{"numpy", "librosa", "tritonclient", "onnxruntime", "soundfile"}} & set(sys.modules), "imported too early"
result = CliRunner().invoke(app, ["reconstruct", "{ROOT}/examples/crow.flac", "-o", "{tmp_path}/a.wav",
                                  "--url", "{url}"])
assert result.exit_code == 0, result.output
print(*{{name.partition(".")[0] for name in sys.modules}}, *(name for name in sys.modules if "tritonclient." in name))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split())
    scheme = url.partition(":")[0]
    assert {"numpy", "soundfile"} < loaded
    assert loaded & {"onnxruntime", "grpc"} == {"grpc": {"grpc"}, "http": set()}.get(scheme, {"grpc", "onnxruntime"})
    unused = {"aiohttp", "av", "gevent", "jinja2", "librosa", "matplotlib", "numba", "onnx", "pandas", "PIL", "rich"}
    unused |= {"scipy", "torch", "gomin_export", "gomin_gateway", "gomin_server", "tritonclient.http"}
    assert not unused & loaded
