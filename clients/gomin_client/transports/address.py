"""Hosts and ports in URLs of servers."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from gomin_client.errors import UsageError


@dataclass(frozen=True)
class Address:
    """A URL, taken apart by `registry.parse`.

    Attributes:
        scheme: the part before the first colon.
        place: HOST:PORT for the scheme of a server; for other schemes, everything after the colon.
        has_host: whether the place is HOST:PORT.
    """

    scheme: str
    place: str
    has_host: bool = True

    @property
    def url(self) -> str:
        """The URL, with its port."""
        return f"{self.scheme}://{self.place}" if self.has_host else f"{self.scheme}:{self.place}"

    @property
    def host_and_port(self) -> tuple[str, int]:
        """For a place that ends with HOST:PORT; an IPv6 address is returned without its brackets."""
        host, _, port = self.place.rpartition(":")
        return host.rpartition("/")[2].strip("[]"), int(port)


def with_port(host: str, default: int) -> str:
    """HOST:PORT, with the default port if there is none; an IPv6 address is written in brackets.

    Raises:
        UsageError: there is no host, or the port is not one (gRPC would take one above 65535 for another), or there are
            credentials: the message does not repeat them.
    """
    if "@" in host:
        raise UsageError("credentials in a URL are not used: send them as a header, authorization")
    name, colon, port = re.fullmatch(r"(\[[^]]*\]|[^:]*)(:?)(.*)", host, re.DOTALL).groups()  # type: ignore[union-attr]
    if re.fullmatch(r"\[[0-9A-Fa-f:.]+%25[^]]+\]", name):  # how RFC 6874 writes a zone, as of fe80::1%eth0
        host, name = host.replace("%25", "%", 1), name.replace("%25", "%", 1)
    if not re.fullmatch(r"\[[0-9A-Za-z:.]+(%[\w.~-]+)?\]|[^][:/@?#\s\x00-\x1f]+", name):
        raise UsageError(f"{name!r} is not a host; an IPv6 address is written in brackets")
    if not colon and not port:
        return f"{host}:{default}"
    if not (colon and re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise UsageError(f"{port!r} is not a port; expected 1 to 65535")
    return host


def redacted(url: str) -> str:
    """The URL without what may be secret: credentials in front of the host, and a query."""
    without_query = re.sub(r"[?#].*", "?…", url, flags=re.DOTALL)
    return re.sub(r"^(\w[\w+.-]*:/*)?.*@", r"\1…@", without_query, flags=re.DOTALL)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: localhost, 127.0.0.0/8, ::1, or the unspecified address."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = ip_address(name)
    if address is None:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def ip_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a host is written as; None if it is a name."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        pass
    if re.fullmatch(r"[0-9a-fx.]*[0-9][0-9a-fx.]*", name):
        try:
            return ipaddress.IPv4Address(socket.inet_aton(name))  # short forms, such as 127.1
        except OSError:
            pass
    return None


def balanced_target(addresses: Sequence[Address]) -> str:
    """gRPC's name for several servers among which it balances.

    Raises:
        OSError: a name cannot be resolved.
        UsageError: the hosts have no kind of IP address in common.
    """
    found = [_resolve(address) for address in addresses]
    for family in ("ipv4", "ipv6"):
        if all(family in places for places in found):
            return f"{family}:{','.join(dict.fromkeys(place for places in found for place in places[family]))}"
    urls = ", ".join(address.url for address in addresses)
    raise UsageError(f"{urls}: these have no kind of IP address in common; give one name for all, as dns:///NAME:PORT")


def _resolve(address: Address) -> dict[str, list[str]]:
    """Kind of IP address → places of a host, as gRPC writes them."""
    host, port = address.host_and_port
    places: dict[str, list[str]] = {}
    for family, _, _, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if family == socket.AF_INET:
            places.setdefault("ipv4", []).append(f"{place[0]}:{port}")
        elif family == socket.AF_INET6:
            places.setdefault("ipv6", []).append(f"[{place[0]}]:{port}")
    return places
