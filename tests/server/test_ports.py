"""The addresses on which the server listens, and the check of its ports."""

import socket
import threading
from collections.abc import Iterator

import pytest

from gomin_server import ports
from tests.support import free_ports

LOOPBACK = ["--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"]


@pytest.fixture
def options() -> dict[str, str]:
    """A free port for each service."""
    return {f"--{service.name}-port": str(n) for service, n in zip(ports.SERVICES, free_ports(3), strict=True)}


@pytest.fixture
def taken(options: dict[str, str]) -> Iterator[str]:
    """The HTTP port is in use; the line that reports it."""
    with socket.create_server(("127.0.0.1", int(options["--http-port"]))) as listener:
        port = listener.getsockname()[1]
        yield f"http: port {port} on 127.0.0.1 is already in use; choose another port with --http-port"


def test_free_ports(options: dict[str, str]) -> None:
    found = ports.find_listeners(options, "127.0.0.1")

    assert list(found.arguments) == LOOPBACK
    assert [(str(address), str(port)) for address, port in found.endpoints.values()] == [
        ("127.0.0.1", port) for port in options.values()
    ]
    assert found.problems == ()


@pytest.mark.parametrize("host", ["::1", "[::1]", "ipv6:::1", "0:0:0:0:0:0:0:1"])
def test_ipv6_addresses_are_written_as_each_service_reads_them(options: dict[str, str], host: str) -> None:
    arguments = ports.find_listeners(options, host).arguments

    assert arguments == ("--http-address=ipv6:::1", "--grpc-address=[::1]", "--metrics-address=ipv6:::1")


@pytest.mark.parametrize(
    ("host", "address"),
    [("localhost", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("::", "::"), ("[::]", "::"), ("ipv4:127.0.0.2", "127.0.0.2")],
)
def test_hosts(host: str, address: str) -> None:
    assert str(ports.resolve(host)) == address


def test_the_address_of_one_service_has_precedence_over_the_host(options: dict[str, str]) -> None:
    given = options | {"--grpc-address": "::1", "--metrics-address": "unix:/run/metrics"}

    found = ports.find_listeners(given, "127.0.0.2")

    assert found.arguments == (
        "--http-address=127.0.0.2",
        "--grpc-address=[::1]",
        "--metrics-address=unix:/run/metrics",
    )
    assert found.problems == ()


def test_all_problems_are_reported_at_once(options: dict[str, str], taken: str) -> None:
    options |= {"--grpc-port": "x", "--metrics-address": "203.0.113.9"}

    assert list(ports.find_listeners(options, "127.0.0.1").problems) == [
        taken,
        "--grpc-port x: expected a port number, 1 to 65535",
        "metrics: 203.0.113.9 is not an address of this machine; "
        "choose another address with --metrics-host or --metrics-address",
    ]


@pytest.mark.parametrize("host", ["", "[]", "no such host", "a" * 100, "1.2.3.4.5", "x\0y", "::g"])
def test_a_host_that_is_not_one(options: dict[str, str], host: str) -> None:
    lines = list(ports.find_listeners(options, host).problems)

    assert len(lines) == 3
    assert lines[0].startswith(f"http: there is no address {host!r}; choose another address")


def test_link_local_addresses_are_refused(options: dict[str, str]) -> None:
    assert (
        "cannot listen on link-local addresses such as fe80::1" in ports.find_listeners(options, "fe80::1").problems[0]
    )


@pytest.mark.parametrize("port", ["0", "65536", "-1", ""])
def test_a_port_that_is_not_one(options: dict[str, str], port: str) -> None:
    problems = list(ports.find_listeners(options | {"--http-port": port}, "127.0.0.1").problems)

    assert problems == [f"--http-port {port}: expected a port number, 1 to 65535"]


def test_two_services_cannot_share_a_port(options: dict[str, str]) -> None:
    problems = list(ports.find_listeners(options | {"--grpc-port": options["--http-port"]}, "127.0.0.1").problems)

    assert len(problems) == 1
    assert problems[0].startswith("grpc: port")


@pytest.mark.parametrize("setting", [{"--allow-http": "false"}, {"--allow-http": "0"}, {"--reuse-http-port": "true"}])
def test_a_port_that_is_not_needed_is_not_checked(options: dict[str, str], taken: str, setting: dict[str, str]) -> None:
    assert list(ports.find_listeners(options, "127.0.0.1").problems) == [taken]
    assert list(ports.find_listeners(options | setting, "127.0.0.1").problems) == []


def test_whether_something_listens(options: dict[str, str]) -> None:
    (address, port), *_ = ports.find_listeners(options, "127.0.0.1").endpoints.values()

    assert not ports.is_listening(address, port)
    with socket.create_server((str(address), port)):
        assert ports.is_listening(address, port)


def test_ports_that_are_released_soon_are_waited_for(options: dict[str, str]) -> None:
    listener = socket.create_server(("127.0.0.1", int(options["--http-port"])))
    timer = threading.Timer(0.5, listener.close)
    timer.start()

    found = ports.wait_for_listeners(options, "127.0.0.1", seconds=60)

    timer.join()
    assert found.problems == ()


def test_the_wait_for_ports_ends(options: dict[str, str], taken: str) -> None:
    assert ports.wait_for_listeners(options, "127.0.0.1", seconds=0.2).problems == (taken,)
    options["--grpc-port"] = "x"  # no wait helps
    assert len(ports.wait_for_listeners(options, "127.0.0.1", seconds=10**9).problems) == 2
