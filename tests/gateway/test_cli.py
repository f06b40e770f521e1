"""gomin-gateway as a program: options, log, signals; in front of a server that goes away and comes back."""

from __future__ import annotations

import http.client
import io
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from gomin_client import UsageError, Vocoder
from gomin_client.transports.connection import Connection
from gomin_gateway import cli
from gomin_gateway.settings import ApiKeys
from tests.client.transports.test_http import silent_server
from tests.gateway.running import running, wait_for
from tests.gateway.test_answers import wav
from tests.support import BIN, RunningServer, assert_fails, free_ports, invoke, run, serving

pytestmark = pytest.mark.long


@contextmanager
def started(tmp_path: Path, *arguments: str | Path) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    """A gateway process, its port, and its log."""
    log = tmp_path / "gateway.log"
    with log.open("wb") as output:
        process = subprocess.Popen([BIN / "gomin-gateway", "--port", "0", *arguments], stderr=output)
    try:
        wait_for(lambda: process.poll() is not None or b" serves " in log.read_bytes())
        assert process.poll() is None, log.read_text()
        yield process, int(log.read_text().partition("127.0.0.1:")[2].split()[0]), log
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_the_program(server: RunningServer, crow: bytes, tmp_path: Path) -> None:
    with started(tmp_path, "--url", server.grpc, "--log-json") as (process, port, log):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("POST", "/v1/reconstruct?stream=1", crow)
        response = connection.getresponse()
        request = response.headers["x-request-id"]
        process.send_signal(signal.SIGTERM)
        assert len(response.read()) == 44 + 2 * 11536  # it is finished
        assert process.wait(timeout=120) == 0
    first, *lines = log.read_text().splitlines()
    assert first.endswith(f"serves the models of {server.grpc}")
    facts = next(fact for fact in map(json.loads, lines) if fact.get("request") == request)
    assert (facts["method"], facts["path"], facts["status"]) == ("POST", "/v1/reconstruct", 200)
    assert (facts["model"], facts["problem"], round(facts["audio_s"], 2)) == ("gomin_gan 1", "", 0.48)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGHUP])
def test_a_second_signal_ends_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: signal.Signals
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with (
        silent_server() as (url, asked),
        started(tmp_path, "--url", url, "--drain", "3600") as (process, port, log),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("POST", "/v1/reconstruct", wav(1))
        assert asked.wait(120)
        assert list(tmp_path.glob("gomin-*/upload"))
        process.send_signal(first)
        wait_for(lambda: "stopping: 1 requests in progress" in log.read_text())
        process.send_signal(signal.SIGHUP)  # which is not counted: a closed terminal may cause several
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["gateway.log"]


def test_in_front_of_a_repository(repository: Path, crow: bytes, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# of the web shop\nsecret-1\n\nsecret-2\n")
    with started(tmp_path, "--url", f"local:{repository}", "--api-key-file", keys) as (_, port, log):
        address = f"http://127.0.0.1:{port}/v1/analyze"
        request = urllib.request.Request(address, crow, {"Authorization": "Bearer secret-2"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            assert np.load(io.BytesIO(answer.read())).shape == (128, 46)
        wait_for(lambda: "/v1/analyze" in log.read_text())
    line = log.read_text().splitlines()[1]
    assert "127.0.0.1 POST /v1/analyze 200" in line
    assert "gomin_gan 1, 0.48 s of audio" in line
    assert "secret" not in log.read_text()


def test_a_server_that_goes_away_and_comes_back(gan_repository: Path, crow: bytes, tmp_path: Path) -> None:
    ports = free_ports(3)
    with running([f"grpc://127.0.0.1:{ports[1]}"], connection=Connection(retry_for_s=0.5)) as gateway:
        for attempt in range(2):
            for method, path in (("GET", "/readyz"), ("GET", "/v1/models"), ("POST", "/v1/reconstruct")):
                gone = gateway.call(method, path, crow if method == "POST" else None)
                gone.assert_problem(503, "server-unavailable", "the model server cannot be reached")
                assert gone.headers["retry-after"] == "1"
            assert gateway.call("GET", "/healthz").status == 200
            with serving(gan_repository, tmp_path / f"log{attempt}", ports=ports) as triton:
                wait_for(lambda: gateway.call("GET", "/readyz").status == 200)
                made = gateway.post("/v1/reconstruct", crow, subtype="float", format="raw", stream=1)
                assert made.status == 200, made.body
                with Vocoder(triton.grpc) as vocoder:
                    assert len(np.frombuffer(made.body, "<f4")) == -(-21196 * vocoder.sample_rate // 44100)
                triton.kill()
            wait_for(lambda: gateway.call("GET", "/readyz").status == 503)


def test_help_is_fast_and_complete() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from gomin_gateway.cli import app\n"
        "print(CliRunner().invoke(app, ['--help']).output)\n"
        "assert not {'numpy', 'fastapi', 'pydantic', 'uvicorn'} & set(sys.modules), sys.modules.keys()"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--api-key-file" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--url", "ftp://x"), 2, "unknown scheme 'ftp'"),
        (("--url", "http://a", "--url", "http://b"), 2, "only gRPC balances"),
        (("--port", "99999"), 2, "65535"),
        (("--api-key-file", "/nowhere/keys"), 2, "--api-key-file /nowhere/keys: cannot be read: No such file"),
        (("--host", "203.0.113.1"), 1, "--host 203.0.113.1 --port 8080: cannot listen there"),
    ],
)
def test_bad_options(arguments: tuple[str, ...], code: int, words: str) -> None:
    result = run("gomin-gateway", *arguments) if "--port" in arguments else invoke(cli.app, *arguments)
    assert result.returncode == code, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_that_is_taken(server: RunningServer) -> None:
    result = invoke(cli.app, "--port", str(server.http_port))
    assert_fails(result, 1, f"--port {server.http_port}: cannot listen there", "in use")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli._PACKAGES, "no_such_module", "no-such-package")
    result = invoke(cli.app, "--url", "grpc://localhost:1")
    assert_fails(result, 2, "gomin-gateway needs no-such-package", "pip install 'gomin-triton[gateway]'")


@pytest.mark.parametrize(
    ("text", "words"), [("# none\n", "has no keys"), ("a b\n", "without spaces"), ("é\n", "ASCII")]
)
def test_key_files(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(UsageError, match=words):
        ApiKeys.from_file(tmp_path / "keys")
