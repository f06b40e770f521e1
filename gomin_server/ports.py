"""The addresses and ports of the server: written as tritonserver reads them, and checked before it starts.

tritonserver checks nothing itself: it fails only after it has loaded all models, reports an address that it cannot read
as a port in use, and with `--http-address ::1` it starts and listens on 255.255.255.255.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PORT = "port with --{1}-port"
ADDRESS = "address with {0} or --{1}-address"
IN_USE = "is already in use"
RELEASE_S = 3.0
UNIX = "unix:"  # a socket in the file system, which only tritonserver's HTTP services have


class AddressError(Exception):
    """A service cannot listen there.

    Attributes:
        choice: What to change, with places for the option of the host and the service's name.
    """

    def __init__(self, reason: str, choice: str) -> None:
        super().__init__(reason)
        self.choice = choice


@dataclass(frozen=True)
class Service:
    """One of the server's network services and its default port.

    Attributes:
        name: The name in tritonserver's options, for example `--http-port`.
        port: The default port.
        ipv6: Format of an IPv6 address in the option for the address.
        host_option: The option of gomin-server for the address.
    """

    name: str
    port: int
    ipv6: str
    host_option: str = "--host"

    @property
    def address_option(self) -> str:
        """Name of the option for the address."""
        return f"--{self.name}-address"


SERVICES = (
    Service("http", 8000, "ipv6:{}"),
    Service("grpc", 8001, "[{}]"),
    Service("metrics", 8002, "ipv6:{}", "--metrics-host"),
)


@dataclass(frozen=True)
class Listeners:
    """Where the server listens.

    Attributes:
        arguments: The options for the addresses, as tritonserver reads them.
        endpoints: Name of each service → address and port.
        problems: One line for each port or address that is in use or not available; empty if there is none.
    """

    arguments: tuple[str, ...]
    endpoints: Mapping[str, tuple[Address, int]]
    problems: tuple[str, ...]


def find_listeners(options: Mapping[str, str], host: str) -> Listeners:
    """Find where the server will listen, and the reasons why it cannot.

    Args:
        options: tritonserver's options, name (with dashes) → value. Missing ones have the server's defaults.
        host: Address of the services for which `options` has none: an IPv4 or IPv6 address, with or without
            brackets, or a host name.
    """
    arguments, problems = [], []
    endpoints: dict[str, tuple[Address, int]] = {}
    with contextlib.ExitStack() as listeners:  # open until all are checked: two services may not share a port
        for service in SERVICES:
            if not is_allowed(service.name, options):
                continue
            host_of_service = options.get(service.address_option, host)
            port = options.get(f"--{service.name}-port", str(service.port))
            shared = options.get(f"--reuse-{service.name}-port", "false").lower() in ("true", "1")
            if not port.isdecimal() or not 0 < int(port) < 65536:
                problems.append(f"--{service.name}-port {port}: expected a port number, 1 to 65535")
            elif host_of_service.startswith(UNIX):
                arguments.append(f"{service.address_option}={host_of_service}")
            else:
                try:
                    address = resolve(host_of_service)
                    if not shared:
                        listeners.enter_context(_listener(address, int(port)))
                except AddressError as error:
                    choice = error.choice.format(service.host_option, service.name)
                    problems.append(f"{service.name}: {error}; choose another {choice}")
                else:
                    written = service.ipv6.format(address) if address.version == 6 else str(address)
                    arguments.append(f"{service.address_option}={written}")
                    endpoints[service.name] = address, int(port)
    return Listeners(tuple(arguments), endpoints, tuple(problems))


def is_allowed(service: str, options: Mapping[str, str]) -> bool:
    """Whether tritonserver's options leave a service on."""
    return options.get(f"--allow-{service}", "true").lower() not in ("false", "0")


def wait_for_listeners(options: Mapping[str, str], host: str, seconds: float = RELEASE_S) -> Listeners:
    """The same, after a wait for ports that are in use: a server that is ending releases its ports soon.

    Args:
        options: See `find_listeners`.
        host: See `find_listeners`.
        seconds: The longest wait.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = find_listeners(options, host)
        in_use = [problem for problem in found.problems if IN_USE in problem]
        if not in_use or len(in_use) < len(found.problems) or time.monotonic() >= deadline:
            return found
        time.sleep(0.1)


def resolve(host: str) -> Address:
    """The IP address of a host: `127.0.0.1`, `::1`, `[::1]`, `ipv6:::1` or a name.

    A name that has addresses of both kinds, as localhost often has, stands for the IPv4 address.

    Raises:
        AddressError: There is no such address, or it is a link-local IPv6 address, which tritonserver cannot use.
    """
    text = host.removeprefix("ipv6:").removeprefix("ipv4:")
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        found = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM) if text else []
    except (OSError, ValueError):  # ValueError: a name with NUL, or longer than a name may be
        found = []
    if not found:
        raise AddressError(f"there is no address {host!r}", ADDRESS)
    address = ipaddress.ip_address(sorted(found, key=lambda entry: entry[0] != socket.AF_INET)[0][4][0])
    if address.version == 6 and address.is_link_local:
        raise AddressError(f"tritonserver cannot listen on link-local addresses such as {address}", ADDRESS)
    return address


def _listener(address: Address, port: int) -> socket.socket:
    """Listen on a port, as the server will.

    Raises:
        AddressError: The port is in use, or the address is not available.
    """
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        # create_server sets SO_REUSEADDR, as the server does: a port that was released just now counts as free
        return socket.create_server((str(address), port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressError(f"port {port} on {address} {IN_USE}", PORT) from None
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise AddressError(f"{address} is not an address of this machine", ADDRESS) from None
        raise AddressError(f"cannot listen on port {port} of {address}: {error.strerror}", PORT) from None


def is_listening(address: Address, port: int) -> bool:
    """Whether something accepts connections there."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(0.2)
        return connection.connect_ex((str(address), port)) == 0
