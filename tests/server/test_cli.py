"""The command line of gomin-server."""

import os
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

from gomin_server import cli
from tests.server.imitation import native_server
from tests.support import BIN, RunningServer, free_ports, run, serving


def test_help_says_what_is_passed_on() -> None:
    result = run("gomin-server", "--help")

    assert result.returncode == 0
    assert "All other arguments are passed to tritonserver" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--model-repository"),
        (["--model-repository", "/nowhere"], "/nowhere: no such directory; run gomin-export first"),
    ],
)
def test_usage_errors_exit_with_2(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)

    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_ports_in_use_are_reported_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = cli.main(["--model-repository", str(tmp_path), "--http-port=0", "--grpc-port", "x"])

    assert status == 1
    assert capsys.readouterr().err.splitlines()[:2] == [
        "gomin-server: --http-port 0: expected a port number, 1 to 65535",
        "gomin-server: --grpc-port x: expected a port number, 1 to 65535",
    ]


def test_the_native_server_is_executed(tmp_path: Path) -> None:
    native = native_server(tmp_path / "tritonserver")
    (tmp_path / "models").mkdir()
    ports = [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), free_ports(3), strict=True)]
    command = [BIN / "gomin-server", "--model-repository", tmp_path / "models", *ports, "--log-verbose", "1"]
    environment = {**os.environ, "PATH": f"{native / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stdout, stderr = process.communicate(timeout=60)

    assert process.returncode == 7
    assert stdout.splitlines() == [
        f"pid {process.pid}",  # this process became tritonserver
        f"argument --model-repository={tmp_path / 'models'}",
        "argument --http-address=127.0.0.1",
        "argument --grpc-address=127.0.0.1",
        "argument --metrics-address=127.0.0.1",
        *(f"argument {port}" for port in ports),
        "argument --log-verbose",
        "argument 1",
    ]
    assert f"using {native}/bin/tritonserver, with the native onnxruntime backend" in stderr


@pytest.mark.server
def test_the_server_listens_on_loopback_by_default(server: RunningServer) -> None:
    assert "(from pip), with the Python-based onnxruntime backend" in server.log_text
    for service in ("GRPCInferenceService", "HTTPService", "Metrics Service"):
        assert f"Started {service} at 127.0.0.1:" in server.log_text


@pytest.mark.server
def test_another_host_and_several_repositories(repository: Path, tmp_path: Path) -> None:
    for home, models in {"first": ["gomin_denoiser", "gomin_diffusion"], "second": ["gomin_gan"]}.items():
        for model in models:
            shutil.copytree(repository / model, tmp_path / home / model)
        (tmp_path / home / "README.md").touch()  # as in a fresh checkout
    arguments = ["--host", "0.0.0.0", "--grpc-address=127.0.0.1", "--model-repository", tmp_path / "second"]

    with serving(tmp_path / "first", tmp_path / "log", *arguments) as server:
        assert f"Started HTTPService at 0.0.0.0:{server.http_port}" in server.log_text
        # an address that is passed on has precedence over --host
        assert f"Started GRPCInferenceService at 127.0.0.1:{server.grpc_port}" in server.log_text
        for model in ("gomin_gan", "gomin_diffusion"):
            with urllib.request.urlopen(f"{server.http}/v2/models/{model}/ready") as answer:
                assert answer.status == 200
