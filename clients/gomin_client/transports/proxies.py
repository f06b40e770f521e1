"""The proxy that gRPC takes from the environment.

gRPC reads `grpc_proxy`, `https_proxy` and `http_proxy`, in this order and in lower case only, and leaves out the hosts
of `no_grpc_proxy` or `no_proxy`. The HTTP transport uses no proxy.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass

from gomin_client.transports.address import ip_address, redacted

_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


@dataclass(frozen=True)
class Proxy:
    """A proxy from the environment.

    Attributes:
        variable: name of the environment variable.
        url: its value, without credentials.
        exceptions: name of the environment variable for hosts that are reached without it.
    """

    variable: str
    url: str
    exceptions: str


def grpc_proxy(host: str) -> Proxy | None:
    """The proxy through which gRPC connects to a host, if there is one."""
    exceptions = next((name for name in _EXCEPTIONS if os.environ.get(name)), _EXCEPTIONS[-1])
    listed = (entry.strip() for entry in os.environ.get(exceptions, "").split(","))
    if any(_matches(host, entry) for entry in listed if entry):
        return None
    for variable in _VARIABLES:
        if value := os.environ.get(variable):
            return Proxy(variable, redacted(value), exceptions)
    return None


def _matches(host: str, entry: str) -> bool:
    """Whether a host is listed: gRPC compares ends of names, and addresses with ranges."""
    if host.lower().endswith(entry.lower()):
        return True
    address = ip_address(host)
    try:
        return address is not None and address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
