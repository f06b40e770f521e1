"""What several test modules use: paths, golden vectors, and real servers."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import typer
from filelock import FileLock
from numpy.typing import NDArray
from typer.testing import CliRunner

from gomin_client.cli.console import exit_status

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
EXAMPLES = sorted((ROOT / "examples").glob("*.flac"))
DEMO_CHECKPOINT = ROOT / "checkpoints" / "demo_gan.pt"
SHARED_GAN = GOLDEN / "gan_trained.pt"  # of the shared server; smaller than the demo checkpoint
BIN = Path(sys.executable).parent

READY_TIMEOUT_S = 300
# for tests that count requests: the small inferences of gomin-server would count too
UNPROBED = "--helper-timeout=0"


def golden(name: str) -> dict[str, NDArray[np.float32]]:
    with np.load(GOLDEN / name) as file:
        return dict(file)


def run(
    program: str, *arguments: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of our programs as a user would; never raises.

    Args:
        program: its name.
        arguments: of the command line.
        cwd: the folder in which it runs.
        env: its environment variables; PYTHONPATH is added, so that it runs the code under test, and not an installed
            copy.
    """
    if env is not None and "PYTHONPATH" in os.environ:
        env = {"PYTHONPATH": os.environ["PYTHONPATH"], **env}
    command = [str(BIN / program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, env=env, check=False)


def invoke(
    app: typer.Typer, *arguments: str | Path, env: dict[str, str | None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of our programs in this process: its output, messages and exit status, without its signal handlers.

    Args:
        app: the program's commands.
        arguments: of the command line.
        env: environment variables to set, or to unset if None.
    """
    program = app.info.name or "program"
    words = [str(argument) for argument in arguments]
    status = 0
    with CliRunner().isolation(env=env) as (stdout, stderr, _):
        try:
            with exit_status(program, lambda: "so far"):
                app(words, prog_name=program)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
        out, err = stdout.getvalue(), stderr.getvalue()
    return subprocess.CompletedProcess([program, *words], status, out.decode(), err.decode())


def missing(what: str) -> None:
    """Skip the test, since this machine lacks something; in CI, which has to have it, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")


def tool(name: str) -> str:
    """The path of a program that pip does not install; see `missing`."""
    path = shutil.which(name)
    if path is None:
        missing(f"the program {name}")
    return str(path)


def interpreter(version: str) -> Path | None:
    """A Python of this version, such as "3.12": this one, one on PATH, or one of pyenv's."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for path in (shutil.which(f"python{version}"), *sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))):
        # pyenv puts programs on PATH that only name the versions that it has
        if path and subprocess.run([path, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return Path(path)
    return None


def environment(name: str, packages: Sequence[str], *options: str | Path, python: Path | None = None) -> Path:
    """The Python of an environment with these packages alone, made once for this machine and user; see `missing`.

    Args:
        name: what the environment is for.
        packages: what pip installs.
        options: further ones of pip install.
        python: the Python that it is made with; None for this one.
    """
    program = [python or sys.executable, "-c", "import sys; print(sys.version)"]
    version = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    asked = [version, *packages, *(Path(option).read_text() for option in options if Path(option).is_file())]
    digest = hashlib.sha256("\n".join(asked).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gomin-triton"
    home = cache / f"{name}-{digest}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{home}.lock"):
        if not (home / "complete").exists():
            subprocess.run([program[0], "-m", "venv", "--clear", "--without-pip", home], check=True)
            pip = [sys.executable, "-m", "pip", "--python", home / "bin/python", "install", "--quiet", "--no-compile"]
            command = [*pip, "--disable-pip-version-check", *options, *packages]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                missing(f"{', '.join(packages)} ({result.stderr.strip().splitlines()[-1]})")
            (home / "complete").touch()
    return home / "bin/python"


def assert_fails(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One line on stderr with these words, and this exit status."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0], lines[0]


@dataclass
class RunningServer:
    """A gomin-server process and where it listens."""

    process: subprocess.Popen[bytes]
    http_port: int
    grpc_port: int
    metrics_port: int
    log: Path
    host: str = "127.0.0.1"  # as in a URL

    @property
    def http(self) -> str:
        return f"http://{self.host}:{self.http_port}"

    @property
    def grpc(self) -> str:
        return f"grpc://{self.host}:{self.grpc_port}"

    @property
    def tritonserver(self) -> int:
        """Process id of the server proper, a child of the launcher."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        # another child filters what the server writes
        (server,) = (child for child in children if Path(f"/proc/{child}/comm").read_text() == "tritonserver\n")
        return int(server)

    def kill(self) -> None:
        """Kill the server as the out-of-memory killer would, and end the launcher before it restarts the server."""
        with suppress(ValueError, ProcessLookupError):  # the launcher has not started it yet, or waits to restart it
            os.kill(self.tritonserver, signal.SIGKILL)
        self.process.terminate()
        self.process.wait(timeout=60)

    @property
    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for_log(self, *texts: str) -> str:
        """The log, once it has these texts: a server is ready before it has said so, and its lines take a way."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not all(text in (log := self.log_text) for text in texts):
            assert time.monotonic() < deadline, f"not all of {texts} are in the log:\n{log}"
            time.sleep(0.1)
        return log

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


def _candidates() -> Iterator[int]:
    """Ports below those that the system hands out, which it could hand out again before a server has bound them.

    Each test process has its own; several runs on one machine begin at different ones.
    """
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first, count = 10_000 + process % 10 * 2_000, 2_000
    return itertools.cycle([first + (os.getpid() * 37 + index) % count for index in range(count)])


_CANDIDATES = _candidates()


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens, and that are not given again soon."""
    ports: list[int] = []
    while len(ports) < count:
        port = next(_CANDIDATES)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
    return ports


@contextmanager
def serving(
    repository: Path,
    log: Path,
    *arguments: str | Path,
    ports: Sequence[int] | None = None,
    host: str = "127.0.0.1",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[RunningServer]:
    """A real Triton server on free ports, or on given ones for HTTP, gRPC and metrics; ready; killed at the end.

    Told to end, an idle tritonserver waits three seconds for nothing. A test of that calls `stop` itself.

    `host`: where clients reach it, as in a URL; `env`: environment variables to change.
    """
    http, grpc, metrics = ports or free_ports(3)
    command = [BIN / "gomin-server", "--model-repository", repository, "--http-port", str(http)]
    command += ["--grpc-port", str(grpc), f"--metrics-port={metrics}", *arguments]
    with log.open("wb") as output:
        environment = {**os.environ, **(env or {})}
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=cwd)
    server = RunningServer(process, http, grpc, metrics, log, host)
    is_ready = _is_ready_over_grpc if "--no-http" in arguments else _is_ready_over_http
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            assert process.poll() is None, f"the server ended with {process.returncode}:\n{server.log_text}"
            assert time.monotonic() < deadline, f"the server is not ready:\n{server.log_text}"
            if is_ready(server):
                break
            time.sleep(0.1)
        yield server
    finally:
        if process.poll() is None:
            server.kill()


def _is_ready_over_http(server: RunningServer) -> bool:
    try:
        with urllib.request.urlopen(f"{server.http}/v2/health/ready", timeout=1):
            return True
    except OSError:
        return False


def _is_ready_over_grpc(server: RunningServer) -> bool:
    import tritonclient.grpc
    from tritonclient.utils import InferenceServerException

    try:
        with tritonclient.grpc.InferenceServerClient(server.grpc.removeprefix("grpc://")) as client:
            return bool(client.is_server_ready(client_timeout=1))
    except InferenceServerException:
        return False


def start(repository: Path) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected to end by itself."""
    ports = zip(("--http-port", "--grpc-port", "--metrics-port"), map(str, free_ports(3)), strict=True)
    return run("gomin-server", "--model-repository", repository, *(word for option in ports for word in option))
