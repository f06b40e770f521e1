"""gomin-server: start a real Triton Inference Server on a model repository."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from importlib import metadata

from gomin_server import exposure, ports, predecessors, processes
from gomin_server.arguments import values, without
from gomin_server.console import NO_GPU_LINES
from gomin_server.installation import NativeServer, SetupError, arguments_without_gpu, find_server
from gomin_server.probes import SHORTEST_TIMEOUT_S, Service
from gomin_server.supervisor import Task, run
from gomin_server.workspace import check_repositories, is_safe, temporary_directories


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Command-line arguments; None: those of the process.

    Returns:
        The server's exit status, or 1 if no server can run here. Usage errors exit with 2.
    """
    parser = _parser()
    options, passed_on = parser.parse_known_args(arguments)
    if options.no_http:
        passed_on = [*without(passed_on, ["--allow-http"]), "--allow-http=false"]
    given = values(passed_on)
    given |= exposure.addresses(
        given, options.host, expose_http=options.expose_triton_http, metrics_host=options.metrics_host
    )
    try:
        check_repositories(options.model_repository)
    except SetupError as error:
        parser.error(str(error))
    try:
        # before the ports are checked: the server of a launcher that was killed may still have them
        predecessors.clean_up([path for _, path in temporary_directories()], _say)
        listeners = ports.wait_for_listeners(given, options.host)
        if listeners.problems:
            raise SetupError("\ngomin-server: ".join(listeners.problems))
        server = find_server(given.get("--backend-directory"))
        if isinstance(server, NativeServer):
            if not is_safe(str(server.backends)):
                raise SetupError(
                    f"--backend-directory {server.backends}: the server cannot handle special characters here"
                )
            _say(f"using {server.binary}, with the native onnxruntime backend in {server.backends}")
            spared: list[str] = []
        else:
            spared = arguments_without_gpu(given)
            _say(f"using {server.binary} (from pip), with the Python-based onnxruntime backend")
            if "--backend-directory" in given:
                parser.error(
                    "--backend-directory contains no native onnxruntime backend, and the pip server needs its own"
                )
        others = without(passed_on, [service.address_option for service in ports.SERVICES])
        mode = given.get("--model-control-mode", "none")
        closed = [] if options.open_admin else exposure.restrictions(passed_on, mode)
        for line in [*exposure.warnings(given), *exposure.notes(closed)]:
            _say(line)
        task = Task(
            server,
            options.model_repository,
            [*listeners.arguments, *closed, *spared, *others],
            list(listeners.endpoints.values()),
            options.restarts,
            _probed(listeners, [*closed, *others]) if options.helper_timeout else None,
            options.helper_timeout,
            options.start_timeout if processes.counts_use() else 0.0,
            NO_GPU_LINES if spared and "--log-file" not in given else (),
        )
        if task.probed is None and options.helper_timeout:
            reason = "HTTP listens on no port" if processes.counts_use() else "this kernel has no /proc/PID/schedstat"
            _say(f"{reason}: a helper process that runs but never answers is not noticed")
        if options.start_timeout and not task.start_timeout_s:
            _say("this kernel has no /proc/PID/schedstat: a server that hangs while it starts is not noticed")
        return run(task, _say)
    except SetupError as error:
        _say(str(error))
        return 1


def _parser() -> argparse.ArgumentParser:
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
        "--model-store",  # tritonserver has both names
        metavar="DIR",
        required=True,
        action="append",
        help="Model repository, as written by gomin-export. May be given several times.",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="IPv4 or IPv6 address, or name, on which gRPC listens. 0.0.0.0 and :: open it to all networks. "
        "HTTP and metrics listen on a loopback address. (default: %(default)s)",
    )
    http = parser.add_mutually_exclusive_group()
    http.add_argument(
        "--expose-triton-http",
        action="store_true",
        help="HTTP listens on the address of --host too. For trusted networks only: one request can end the server.",
    )
    http.add_argument("--no-http", action="store_true", help="HTTP is off.")
    parser.add_argument(
        "--metrics-host",
        metavar="HOST",
        help="Address or name on which metrics are served. (default: a loopback address)",
    )
    parser.add_argument(
        "--open-admin",
        action="store_true",
        help="Everyone who reaches the server may use its endpoints for shared memory, traces, logging and model "
        "control. Otherwise they are closed, except those that --http-restricted-api or --grpc-restricted-protocol "
        "give a secret.",
    )
    parser.add_argument(
        "--restarts",
        type=_count,
        default=10,
        metavar="N",
        help="Restarts within a minute after which a crashing server is given up. 0: it is never restarted. "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--helper-timeout",
        type=_seconds,
        default=20.0,
        metavar="SECONDS",
        help="The server is restarted if a helper process of a model is idle for this time while a small inference "
        "waits for its answer. A helper process that computes is left alone. 0: this is not checked. "
        "(default: %(default)g)",
    )
    parser.add_argument(
        "--start-timeout",
        type=_seconds,
        default=600.0,
        metavar="SECONDS",
        help="The server is restarted if all its processes are idle for this time before it is ready. A server that "
        "loads models is not idle, unless a model waits for something, such as a download. 0: this is not checked. "
        "(default: %(default)g)",
    )
    parser.add_argument(
        "--version",
        action="version",
        help="Show the version and exit.",
        version=f"gomin-triton {metadata.version('gomin-triton')}",
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected an integer, 0 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (value == 0 or SHORTEST_TIMEOUT_S <= value < math.inf):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a number of seconds, {SHORTEST_TIMEOUT_S:g} or more, or 0"
        )
    return value


def _probed(listeners: ports.Listeners, arguments: Sequence[str]) -> Service | None:
    """Where small inferences are sent; None: this is not possible here."""
    if "http" not in listeners.endpoints or not processes.counts_use():
        return None
    address, port = listeners.endpoints["http"]
    clients = [listeners.endpoints[name][1] for name in ("http", "grpc") if name in listeners.endpoints]
    return Service(str(address), port, clients, exposure.secret_headers(arguments))


def _say(text: str) -> None:
    print(f"gomin-server: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
