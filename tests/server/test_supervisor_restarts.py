"""Restarts of a server that crashed or no longer works."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.grpc import service_pb2

from gomin_client import Vocoder
from tests.server.imitation import native_server
from tests.server.processes import descendants
from tests.support import BIN, RunningServer, free_ports, serving

IMITATION = """
import os, signal, socket, sys, time
starts = os.environ["STARTS"]
with open(starts, "a") as file:
    print(os.getpid(), file=file)
number = len(open(starts).readlines())
first, later = os.environ["ENDS"].split(",")
port = next(int(word.partition("=")[2]) for word in sys.argv if word.startswith("--http-port="))
end = first if number == 1 else later
if end == "hang":
    print('"loading: gomin_mel:1"\\n"loading: gomin_gan:1"\\n"successfully loaded \\'gomin_mel\\'"', file=sys.stderr)
    while "successfully loaded" not in open(os.environ["LOG"]).read():
        pass  # not idle before gomin-server knows these lines
    time.sleep(600)
if end != "status 3":
    listener = socket.create_server(("127.0.0.1", port))
    listener.accept()  # gomin-server has seen that it is ready
if end == "crash":
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)
if end == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if end in ("serve", "stubborn"):
    print("serving", file=open(starts + ".serving", "w"))
    time.sleep(600)
sys.exit(int(end.removeprefix("status ")))
"""
# gomin-server, which is told to end as soon as it has said that it restarts the server
ENDED_BETWEEN_RUNS = """
import os, signal, sys
from gomin_server import cli
say = cli._say
def say_and_end(text):
    say(text)
    if "restarting the server" in text:
        os.kill(os.getpid(), signal.SIGTERM)
cli._say = say_and_end
sys.exit(cli.main())
"""


class TestPolicy:
    """With an imitation of tritonserver that ends as it is told."""

    def start(
        self,
        home: Path,
        ends: str,
        restarts: int,
        *options: str,
        launcher: Sequence[str | Path] = (BIN / "gomin-server",),
    ) -> subprocess.Popen[bytes]:
        """Start gomin-server; `ends`: how the imitation ends at first, and how later."""
        native = native_server(home / "tritonserver", IMITATION)
        (home / "models").mkdir()
        environment = {
            **os.environ,
            "PATH": f"{native / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "LOG": str(home / "log"),
            "STARTS": str(home / "starts"),
            "ENDS": ends,
        }
        services = [f"--http-port={free_ports(1)[0]}", "--allow-grpc=false", "--allow-metrics=false"]
        services += ["--exit-timeout-secs=1", *options]
        command = [*launcher, "--model-repository", home / "models", "--restarts", str(restarts), *services]
        with (home / "log").open("w") as log:
            return subprocess.Popen(command, env=environment, stderr=log)

    def wait_for(self, home: Path, text: str) -> None:
        """Wait until the log has some text."""
        deadline = time.monotonic() + 60
        while text not in (home / "log").read_text():
            assert time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.05)

    def starts(self, home: Path) -> int:
        return len((home / "starts").read_text().splitlines()) if (home / "starts").exists() else 0

    def test_a_server_that_goes_on_crashing_is_given_up(self, tmp_path: Path) -> None:
        process = self.start(tmp_path, "crash,crash", restarts=2)
        process.wait(timeout=300)
        errors = (tmp_path / "log").read_text().splitlines()

        assert process.returncode == 128 + signal.SIGSEGV
        assert self.starts(tmp_path) == 3
        crash = "gomin-server: the server was killed by signal 11 (Segmentation fault)"
        assert errors[1:] == [
            f"{crash}; restarting the server in 0.5 s (restart 1 of 2 in a minute)",
            "gomin-server: the server is ready again",
            f"{crash}; restarting the server in 1 s (restart 2 of 2 in a minute)",
            "gomin-server: the server is ready again",
            f"{crash}; the server is not restarted again",
        ]

    @pytest.mark.parametrize("status", [0, 3])
    def test_a_status_of_the_first_start_is_passed_on(self, tmp_path: Path, status: int) -> None:
        """3: models that cannot be loaded, a wrong option. 0: someone has stopped tritonserver itself."""
        process = self.start(tmp_path, f"status {status},serve", restarts=10)
        process.wait(timeout=60)

        assert process.returncode == status
        assert self.starts(tmp_path) == 1

    def test_a_restart_that_fails_is_repeated_and_then_given_up(self, tmp_path: Path) -> None:
        process = self.start(tmp_path, "crash,status 3", restarts=2)
        process.wait(timeout=60)
        errors = (tmp_path / "log").read_text()

        assert process.returncode == 3
        assert self.starts(tmp_path) == 3
        assert "the server ended with status 3; the server is not restarted again" in errors

    def test_a_signal_between_two_runs_ends_the_launcher(self, tmp_path: Path) -> None:
        launcher = (sys.executable, "-c", ENDED_BETWEEN_RUNS)
        process = self.start(tmp_path, "crash,serve", restarts=10, launcher=launcher)
        process.wait(timeout=60)

        assert process.returncode == 0
        assert "restarting the server" in (tmp_path / "log").read_text()
        assert self.starts(tmp_path) == 1

    def test_a_server_that_hangs_while_it_starts_is_restarted(self, tmp_path: Path) -> None:
        process = self.start(tmp_path, "hang,serve", 10, "--start-timeout=2")
        self.wait_for(tmp_path, "ready again")

        process.terminate()
        process.wait(timeout=60)

        assert process.returncode == 0
        reason = "the server hangs while it loads model gomin_gan: all its processes were idle for 2 s"
        assert f"gomin-server: {reason}; restarting the server in 0.5 s" in (tmp_path / "log").read_text()

    @pytest.mark.slow
    def test_a_server_that_does_not_end_is_killed(self, tmp_path: Path) -> None:
        process = self.start(tmp_path, "stubborn,stubborn", restarts=2)
        deadline = time.monotonic() + 60
        while not (tmp_path / "starts.serving").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        process.wait(timeout=60)

        assert process.returncode == 128 + signal.SIGKILL
        assert self.starts(tmp_path) == 1, "it is not restarted"
        assert "did not end within 11 s and is killed" in (tmp_path / "log").read_text()

    def test_a_signal_after_a_restart_ends_the_new_server(self, tmp_path: Path) -> None:
        process = self.start(tmp_path, "crash,serve", restarts=10)
        self.wait_for(tmp_path, "ready again")

        process.terminate()
        process.wait(timeout=60)

        assert process.returncode == 0
        assert self.starts(tmp_path) == 2


@pytest.fixture(scope="module")
def restarting(vocoder_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(vocoder_repository, tmp_path_factory.mktemp("restarting") / "log") as server:
        yield server


def helper(server: RunningServer, model: str) -> int:
    """The helper process of a model."""
    command_lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(server.process.pid)}
    return next(pid for pid, line in command_lines.items() if f"/{model}/".encode() in line)


def send_overflowing_shape(server: RunningServer) -> None:
    """A request whose size in bytes wraps around in 64 bits: Triton takes it, and the helper process aborts."""
    request = service_pb2.ModelInferRequest(model_name="gomin_gan")
    mel = request.inputs.add(name="mel", datatype="FP32")
    mel.shape.extend([1, 128, 2**55 + 3])
    request.raw_input_contents.append(bytes(128 * 3 * 4))
    client = tritonclient.grpc.InferenceServerClient(server.grpc.partition("://")[2])
    with pytest.raises(Exception, match=r"not healthy|Socket closed"):
        client._client_stub.ModelInfer(request, timeout=60)
    client.close()


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "model", "protocol", "reason"),
    [
        ("server killed", "gan", "grpc", "the server was killed by signal 9 (Killed)"),
        ("helper killed", "gan", "http", "the helper process of model gomin_gan died"),
        ("helper killed", "diffusion", "grpc", "the helper process of model gomin_denoiser died"),
        ("helper stopped", "gan", "grpc", "the helper process of model gomin_gan is stopped"),
        ("hostile shape", "gan", "http", "the helper process of model gomin_gan died"),
    ],
)
def test_no_request_is_lost(restarting: RunningServer, fault: str, model: str, protocol: str, reason: str) -> None:
    """Requests after a fault are answered in the end, without anyone doing anything."""
    before = restarting.log_text.count("ready again")
    with Vocoder(getattr(restarting, protocol), model) as vocoder:
        mel = np.random.default_rng(0).uniform(0, 1, (vocoder.contract.mel.n_mels, 5)).astype(np.float32)
        seed = 1 if model == "diffusion" else None
        expected = vocoder.synthesize(mel, seed=seed)

        if fault == "server killed":
            os.kill(restarting.tritonserver, signal.SIGKILL)
        elif fault == "hostile shape":
            send_overflowing_shape(restarting)
        else:
            name = "gomin_denoiser" if model == "diffusion" else "gomin_gan"
            os.kill(helper(restarting, name), signal.SIGKILL if fault == "helper killed" else signal.SIGSTOP)

        np.testing.assert_array_equal(vocoder.synthesize(mel, seed=seed), expected)
    deadline = time.monotonic() + 60
    while restarting.log_text.count("ready again") == before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert re.findall(r"gomin-server: (.*); restarting the server in", restarting.log_text)[before:] == [reason]
