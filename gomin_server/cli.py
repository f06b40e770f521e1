"""gomin-server: start a real Triton Inference Server on a model repository."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from gomin_server import ports
from gomin_server.installation import NativeServer, SetupError, find_server

ADDRESS_OPTIONS = ("--http-address", "--grpc-address", "--metrics-address")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Command-line arguments; None: those of the process.

    Returns:
        The server's exit status, or 1 if no server can run here. Usage errors exit with 2.
    """
    parser = argparse.ArgumentParser(
        prog="gomin-server",
        description="Run a real Triton Inference Server: the tritonserver on PATH if it has NVIDIA's native "
        "onnxruntime backend (as in NVIDIA's container), otherwise pip's, with a Python-based backend.",
        epilog="All other arguments are passed to tritonserver unchanged, for example --http-port 8010 "
        "--grpc-port 8011 --model-control-mode poll.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model-repository",
        metavar="DIR",
        required=True,
        action="append",
        help="Model repository, as written by gomin-export. May be given several times.",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="Address on which HTTP, gRPC and metrics listen. 0.0.0.0: all networks. (default: %(default)s)",
    )
    parser.add_argument(
        "--version",
        action="version",
        help="Show the version and exit.",
        version=f"gomin-triton {metadata.version('gomin-triton')}",
    )
    options, passed_on = parser.parse_known_args(arguments)
    for directory in options.model_repository:
        if not os.path.isdir(directory):
            parser.error(f"{directory}: no such directory; run gomin-export first")

    command = [f"--model-repository={directory}" for directory in options.model_repository]
    given = _options(passed_on)
    command += [f"{name}={options.host}" for name in ADDRESS_OPTIONS if name not in given]
    command += passed_on
    busy = ports.problems(_options(command))
    if busy:
        print("\n".join(f"gomin-server: {problem}" for problem in busy), file=sys.stderr)
        return 1
    try:
        server = find_server(given.get("--backend-directory"))
    except SetupError as error:
        print(f"gomin-server: {error}", file=sys.stderr)
        return 1
    if isinstance(server, NativeServer):
        _say(f"{server.binary}, with the native onnxruntime backend in {server.backends}")
        os.execv(server.binary, [str(server.binary), *command])
    _say(f"{server.binary} (from pip), with the Python-based onnxruntime backend")
    if "--backend-directory" in given:
        parser.error(
            "--backend-directory contains no native onnxruntime backend, and the pip server needs its own directory"
        )

    from gomin_server.supervisor import run

    return run(server, command)


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """Name → value of `--option VALUE` and `--option=VALUE`. The last occurrence counts."""
    options = {}
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            following = arguments[position + 1] if position + 1 < len(arguments) else ""
            options[name] = value if equals else following
    return options


def _say(text: str) -> None:
    print(f"gomin-server: using {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
