"""The check of the server's ports."""

import socket
from collections.abc import Iterator

import pytest

from gomin_server import ports
from tests.support import free_ports


@pytest.fixture
def options() -> dict[str, str]:
    """Loopback and a free port for each service."""
    numbers = free_ports(3)
    addresses = {f"--{service.name}-address": "127.0.0.1" for service in ports.SERVICES}
    return addresses | {f"--{service.name}-port": str(n) for service, n in zip(ports.SERVICES, numbers, strict=True)}


@pytest.fixture
def taken(options: dict[str, str]) -> Iterator[str]:
    """The HTTP port, which another program has; the line that reports it."""
    with socket.create_server(("127.0.0.1", int(options["--http-port"]))) as listener:
        yield (
            f"http: port {listener.getsockname()[1]} on 127.0.0.1 is in use by another program; "
            "choose another port with --http-port"
        )


def test_free_ports(options: dict[str, str]) -> None:
    assert ports.problems(options) == []


def test_all_problems_are_reported_at_once(options: dict[str, str], taken: str) -> None:
    options |= {"--grpc-port": "x", "--metrics-address": "203.0.113.9"}

    assert ports.problems(options) == [
        taken,
        "--grpc-port x: expected a port number, 1 to 65535",
        "metrics: 203.0.113.9 is not an address of this machine; choose another port with --metrics-port",
    ]


@pytest.mark.parametrize("port", ["0", "65536", "-1", ""])
def test_a_port_that_is_not_one(options: dict[str, str], port: str) -> None:
    assert ports.problems(options | {"--http-port": port}) == [
        f"--http-port {port}: expected a port number, 1 to 65535"
    ]


@pytest.mark.parametrize("setting", [{"--allow-http": "false"}, {"--allow-http": "0"}, {"--reuse-http-port": "true"}])
def test_a_port_that_is_not_needed_is_not_checked(options: dict[str, str], taken: str, setting: dict[str, str]) -> None:
    assert ports.problems(options) == [taken]
    assert ports.problems(options | setting) == []
