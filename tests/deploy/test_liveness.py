"""The probe for containers without gomin-server."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gomin_server import processes
from tests.support import READY_TIMEOUT_S, ROOT, UNPROBED, serving

PROBE = ROOT / "deploy/kubernetes/gpu/liveness.py"


def probe(url: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRITON_HTTP": url}
    return subprocess.run([sys.executable, PROBE], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.server
@pytest.mark.slow
def test_a_dead_helper_process_is_found(tiny_repository: Path, tmp_path: Path) -> None:
    with serving(tiny_repository, tmp_path / "log", UNPROBED) as server:
        alive = probe(server.http)
        assert (alive.returncode, alive.stderr) == (0, "")

        server.process.send_signal(signal.SIGSTOP)  # the launcher would restart it
        try:
            helper = next(
                pid
                for pid, _, _ in processes.helpers(server.tritonserver)
                if (served := processes.served(pid)) and served.model == "gomin_gan"
            )
            os.kill(helper, signal.SIGKILL)
            deadline = time.monotonic() + READY_TIMEOUT_S
            # as the kubelet does: to the probe, a server that takes long has work
            while (dead := probe(server.http)).returncode == 0:
                assert time.monotonic() < deadline
        finally:
            server.process.send_signal(signal.SIGCONT)

    assert dead.returncode == 1
    assert dead.stderr.startswith("model gomin_gan, version 1: ")


@contextmanager
def answering(status: int, message: str) -> Iterator[str]:
    """A server with one model that answers inferences like that."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(200, {"inputs": [{"name": "mel", "datatype": "FP32", "shape": [-1, 128, -1]}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path.endswith("/index"):
                self.answer(200, [{"name": "m", "version": "2"}])
            else:
                assert self.path == "/v2/models/m/versions/2/infer"
                assert [len(tensor["data"]) for tensor in body["inputs"]] == [128]
                self.answer(status, {"error": message})

        def answer(self, code: int, content: object) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (200, "", 0),
        (503, "Exceeds maximum queue size", 0),
        (400, "expected 3 inputs", 0),
        (500, "Stub process 'm_0_0' is not healthy.", 1),
    ],
)
def test_only_a_dead_process_counts(status: int, message: str, code: int) -> None:
    with answering(status, message) as url:
        assert probe(url).returncode == code


def test_a_server_that_does_not_answer() -> None:
    result = probe("http://127.0.0.1:1")

    assert result.returncode == 1
    assert result.stderr.startswith("http://127.0.0.1:1 does not answer: ")
