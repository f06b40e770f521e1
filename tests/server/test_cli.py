"""The command line of gomin-server."""

import os
import shutil
import socket
import urllib.request
from pathlib import Path

import pytest

from gomin_client import Vocoder
from gomin_server import cli, exposure
from tests.server.imitation import native_server
from tests.support import RunningServer, free_ports, run, serving

pytestmark = pytest.mark.long


def port_options() -> list[str]:
    return [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), free_ports(3), strict=True)]


def test_help_says_what_is_passed_on() -> None:
    result = run("gomin-server", "--help")

    assert result.returncode == 0
    assert "All other arguments are passed to tritonserver" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--model-repository"),
        (["--model-repository", "/nowhere"], "/nowhere: no such directory; run gomin-export first"),
        (["--model-repository", "/dev", "--restarts", "-1"], "'-1': expected an integer, 0 or more"),
        (["--model-repository", "/dev", "--helper-timeout", "0.5"], "'0.5': expected a number of seconds, 2 or more"),
        (["--model-repository", "/dev", "--helper-timeout", "inf"], "'inf': expected a number of seconds, 2 or more"),
        (["--model-store", "/dev/null"], "/dev/null: cannot read the model repository: Not a directory"),
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


class TestNativeServer:
    """With an imitation of NVIDIA's installation, whose tritonserver prints its arguments."""

    def run(self, root: Path, *arguments: str | Path) -> tuple[list[str], str]:
        """The arguments that tritonserver received, and stderr."""
        environment = {**os.environ, "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        result = run("gomin-server", *arguments, env=environment)
        assert result.returncode == 7, result.stderr
        return [line.removeprefix("argument ") for line in result.stdout.splitlines()], result.stderr

    def test_it_receives_all_other_arguments(self, tmp_path: Path) -> None:
        native = native_server(tmp_path / "tritonserver")
        (tmp_path / "models").mkdir()
        ports = port_options()
        passed_on = [*ports, "--log-verbose", "1"]

        received, stderr = self.run(native, "--model-repository", tmp_path / "models", *passed_on)

        assert received[0] == f"--model-repository={tmp_path / 'models'}"
        assert received[1].startswith("--backend-config=python,shm-region-prefix-name=gomin_server_")
        assert received[2:] == [
            "--http-address=127.0.0.1",
            "--grpc-address=127.0.0.1",
            "--metrics-address=127.0.0.1",
            *received[5:7],
            *passed_on,
        ]
        for option, argument in zip(exposure.RESTRICTIONS, received[5:7], strict=True):
            assert argument.startswith(f"{option}=shared-memory,trace,logging:gomin-admin=")
        assert f"using {native}/bin/tritonserver, with the native onnxruntime backend" in stderr

    @pytest.mark.parametrize(
        ("options", "warned"), [([], False), (["--no-http"], True), (["--no-http", "--helper-timeout=0"], False)]
    )
    def test_without_http_helpers_that_never_answer_are_not_noticed(
        self, tmp_path: Path, options: list[str], warned: bool
    ) -> None:
        native = native_server(tmp_path / "tritonserver")
        (tmp_path / "models").mkdir()

        _, stderr = self.run(native, "--model-repository", tmp_path / "models", *port_options(), *options)

        note = "HTTP listens on no port: a helper process that runs but never answers is not noticed"
        assert (note in stderr) == warned

    def test_a_backend_directory_with_special_characters_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        native = native_server(tmp_path / "triton server")
        monkeypatch.setenv("PATH", f"{native / 'bin'}{os.pathsep}{os.environ['PATH']}")
        ports = port_options()

        (tmp_path / "models").mkdir()

        assert cli.main(["--model-repository", str(tmp_path / "models"), *ports]) == 1
        assert f"{native / 'backends'}: " in capsys.readouterr().err


@pytest.mark.server
def test_the_server_listens_on_loopback_by_default(server: RunningServer) -> None:
    services = ("GRPCInferenceService", "HTTPService", "Metrics Service")
    log = server.wait_for_log(*(f"Started {service} at " for service in services))

    assert "(from pip), with the Python-based onnxruntime backend" in log
    for service in services:
        assert f"Started {service} at 127.0.0.1:" in log


@pytest.mark.server
def test_another_host_and_several_repositories(repository: Path, tmp_path: Path) -> None:
    for home, models in {"first": ["gomin_denoiser", "gomin_diffusion"], "second": ["gomin_gan"]}.items():
        for model in models:
            shutil.copytree(repository / model, tmp_path / home / model)
        (tmp_path / home / "README.md").touch()  # as in a fresh checkout
    arguments = [
        "--host",
        "0.0.0.0",
        "--expose-triton-http",
        "--grpc-address=127.0.0.1",
        "--model-repository",
        tmp_path / "second",
    ]

    with serving(tmp_path / "first", tmp_path / "log", *arguments) as server:
        log = server.wait_for_log("Started HTTPService at ", "Started GRPCInferenceService at ")
        assert f"Started HTTPService at 0.0.0.0:{server.http_port}" in log
        # an address that is passed on has precedence over --host
        assert f"Started GRPCInferenceService at 127.0.0.1:{server.grpc_port}" in log
        assert "gomin-server: warning: Triton's HTTP port is open on 0.0.0.0" in log
        for model in ("gomin_gan", "gomin_diffusion"):
            with urllib.request.urlopen(f"{server.http}/v2/models/{model}/ready") as answer:
                assert answer.status == 200


@pytest.mark.server
def test_unsafe_paths_are_served_and_run_no_command(gan_repository: Path, tmp_path: Path) -> None:
    """The helper processes are started through bash, with paths unquoted."""
    unsafe = tmp_path / "My $(touch injected) `touch injected`; 'a \"b\nc\\d größer"
    shutil.copytree(gan_repository, unsafe)
    temporary = tmp_path / "t $(touch injected)"
    temporary.mkdir()

    with serving(unsafe, tmp_path / "log", cwd=tmp_path, env={"TMPDIR": str(temporary)}) as server:
        with urllib.request.urlopen(f"{server.http}/v2/models/gomin_gan/ready") as answer:
            assert answer.status == 200
        assert "special characters" in server.log_text

    assert list(tmp_path.rglob("injected")) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.server
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_ipv6(gan_repository: Path, tmp_path: Path) -> None:
    with serving(gan_repository, tmp_path / "log", "--host", "::1", host="[::1]") as server:
        for url in (server.http, server.grpc):
            assert Vocoder(url).sample_rate == 24000
        server.wait_for_log("Started Metrics Service at ")
        with urllib.request.urlopen(f"http://[::1]:{server.metrics_port}/metrics") as answer:
            assert b"nv_inference_count" in answer.read()
