"""A check that the server's ports are free. Without it the server fails only after it has loaded all models."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """One of the server's network services and its default port."""

    name: str
    port: int


SERVICES = (Service("http", 8000), Service("grpc", 8001), Service("metrics", 8002))


def problems(options: Mapping[str, str]) -> list[str]:
    """The reasons why the server cannot listen.

    Args:
        options: tritonserver's options, name (with dashes) → value. Missing ones have the server's defaults.

    Returns:
        One line for each port that is in use or not available; empty if there is none.
    """
    found = []
    for service in SERVICES:
        if options.get(f"--allow-{service.name}", "true").lower() in ("false", "0"):
            continue
        if options.get(f"--reuse-{service.name}-port", "false").lower() in ("true", "1"):
            continue
        host = options.get(f"--{service.name}-address", "0.0.0.0")
        text = options.get(f"--{service.name}-port", str(service.port))
        if not text.isdecimal() or not 0 < int(text) < 65536:
            found.append(f"--{service.name}-port {text}: expected a port number, 1 to 65535")
            continue
        reason = _cannot_listen(host, int(text))
        if reason:
            found.append(f"{service.name}: {reason}; choose another port with --{service.name}-port")
    return found


def _cannot_listen(host: str, port: int) -> str | None:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # create_server sets SO_REUSEADDR, as the server does: a port that was released just now counts as free
        socket.create_server((host, port), family=family).close()
    except socket.gaierror:
        return f"there is no address {host}"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"port {port} on {host} is in use by another program"
        if error.errno == errno.EADDRNOTAVAIL:
            return f"{host} is not an address of this machine"
        return f"cannot listen on {host}:{port}: {error.strerror}"
    return None
