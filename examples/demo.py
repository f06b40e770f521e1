"""From the demo checkpoint to audio: export to ONNX, serve with Triton, reconstruct. Results are under demo/.

Run by `make demo`. Every command is printed as a person would type it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
DEMO = Path("demo")
REPOSITORY = DEMO / "model_repository"
READY_TIMEOUT_S = 120


def main() -> int:
    """Run all steps; returns the exit status."""
    os.chdir(ROOT)
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    recordings = sorted(str(path) for path in Path("examples").glob("*.flac"))

    step("1. Export the demo checkpoint and compare ONNX Runtime with PyTorch")
    run(
        "gomin-export", "gan", "--ckpt", "checkpoints/demo_gan.pt", "--repository", str(REPOSITORY), "--target", "cpu"
    )  # fmt: skip

    step("2. Start a Triton server")
    http, grpc, metrics = free_ports(3)
    log = DEMO / "server.log"
    command = ["gomin-server", "--model-repository", str(REPOSITORY)]
    command += ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)]
    show(command, f"> {log} 2>&1 &")
    with log.open("w") as output:
        server = subprocess.Popen([BIN / command[0], *command[1:]], stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until_ready(server, f"http://127.0.0.1:{http}/v2/health/ready", log)

        step("3. Compare the running server with the export")
        run("gomin-export", "verify", "--url", f"grpc://localhost:{grpc}", "--repository", str(REPOSITORY))

        step("4. Reconstruct the example recordings through it")
        run(
            "gomin-client", "reconstruct", *recordings, "-o", f"{DEMO}/",
            "--url", f"grpc://localhost:{grpc}", "--plot", str(DEMO / "spectrograms.png"),
        )  # fmt: skip
    finally:
        step("5. Stop the server")
        server.send_signal(signal.SIGTERM)
        status = server.wait()
        print(f"it ended with status {status}")

    print(
        f"\nListen to   {DEMO}/*.wav; the originals are in examples/*.flac"
        f"\nLook at     {DEMO}/spectrograms.png"
        f"\nModels      {REPOSITORY}/"
        f"\nServer log  {log}"
        "\n\nThe demo model is small: expect intelligible, noisy sound. For GOMIN's own quality, get its checkpoints"
        "\n(see README.md) and run the same commands."
    )
    return 0


def step(title: str) -> None:
    """Announce a step."""
    print(f"\n== {title}", flush=True)


def show(command: list[str], redirection: str = "") -> None:
    """Print a command as a person would type it."""
    print(f"$ {shlex.join(command)} {redirection}".rstrip(), flush=True)


def run(*command: str) -> None:
    """Show a command and run it; a failure ends the demo."""
    show(list(command))
    subprocess.run([BIN / command[0], *command[1:]], check=True)


def free_ports(count: int) -> list[int]:
    """Ports that are free, so that the demo does not conflict with a running server."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def wait_until_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until the server reports that all models are loaded."""
    started = time.monotonic()
    while time.monotonic() - started < READY_TIMEOUT_S:
        if server.poll() is not None:
            sys.exit(f"the server ended with status {server.returncode}; the end of its log:\n{tail(log)}")
        try:
            with urllib.request.urlopen(url, timeout=1):
                print(f"ready after {time.monotonic() - started:.1f} s")
                return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"the server was not ready within {READY_TIMEOUT_S} s; the end of its log:\n{tail(log)}")


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as failure:
        sys.exit(failure.returncode)
