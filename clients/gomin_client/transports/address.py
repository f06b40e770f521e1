"""URLs of models: what people type, taken apart."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from gomin_client.errors import UsageError

URL_FORMS = "grpc://HOST:PORT, http://HOST:PORT, local:DIRECTORY or HOST:PORT (gRPC); grpcs:// and https:// for TLS"
GRPC_SCHEMES = ("grpc", "grpcs", "dns")
HTTP_SCHEMES = ("http", "https")
_DEFAULT_PORTS = {"grpc": 8001, "grpcs": 8001, "dns": 8001, "http": 8000, "https": 443}


@dataclass(frozen=True)
class Address:
    """One URL.

    Attributes:
        scheme: one of `GRPC_SCHEMES` or `HTTP_SCHEMES`, or "local".
        place: HOST:PORT; for dns, [//RESOLVER]/HOST:PORT as gRPC has it; for local, a directory.
    """

    scheme: str
    place: str

    @property
    def url(self) -> str:
        """The URL, its port written out."""
        return f"{self.scheme}:{self.place}" if self.scheme in ("local", "dns") else f"{self.scheme}://{self.place}"

    @property
    def host_and_port(self) -> tuple[str, int]:
        """For schemes with a host; an IPv6 address without its brackets."""
        host, _, port = self.place.rpartition(":")
        return host.rpartition("/")[2].strip("[]"), int(port)


def parse(url: str) -> Address:
    """Take a URL apart.

    Raises:
        UsageError: the URL has none of the forms of `URL_FORMS`.
    """
    if url.startswith("local:"):
        scheme, place = "local", url.removeprefix("local:")
    elif url.startswith("dns://"):
        scheme, place = "dns", url.removeprefix("dns:")
    else:
        scheme, separator, place = url.partition("://")
        if not separator:
            scheme, place = "grpc", url
        place = place.rstrip("/")
    host = place.rpartition("/")[2] if scheme == "dns" else place
    if not host or (scheme not in ("local", "dns") and "/" in host):
        raise UsageError(f"URL {url!r}: expected {URL_FORMS}")
    if scheme == "local":
        return Address(scheme, place)
    if scheme not in _DEFAULT_PORTS:
        raise UsageError(f"URL {url!r}: unknown scheme {scheme!r}; expected {URL_FORMS}")
    return Address(scheme, place.removesuffix(host) + _with_port(host, _DEFAULT_PORTS[scheme]))


def balanced_target(addresses: Sequence[Address]) -> str:
    """gRPC's name for several servers among which it balances.

    Raises:
        OSError: a name cannot be resolved.
        UsageError: the hosts have no kind of IP address in common.
    """
    found = [_resolve(address) for address in addresses]
    for scheme in ("ipv4", "ipv6"):
        if all(scheme in places for places in found):
            return f"{scheme}:{','.join(dict.fromkeys(place for places in found for place in places[scheme]))}"
    urls = ", ".join(address.url for address in addresses)
    raise UsageError(f"{urls}: these have no kind of IP address in common; give one name for all, as dns:///NAME:PORT")


def _resolve(address: Address) -> dict[str, list[str]]:
    """Places of a host, as gRPC writes them, by kind of IP address."""
    host, port = address.host_and_port
    places: dict[str, list[str]] = {}
    for family, _, _, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if family == socket.AF_INET:
            places.setdefault("ipv4", []).append(f"{place[0]}:{port}")
        elif family == socket.AF_INET6:
            places.setdefault("ipv6", []).append(f"[{place[0]}]:{port}")
    return places


def _with_port(host: str, default: int) -> str:
    """The host with the default port where it names none; an IPv6 address stands in brackets.

    Raises:
        UsageError: no host, or a port that is none; gRPC would take one above 65535 for another.
    """
    name, colon, port = re.fullmatch(r"(\[[^]]*\]|[^:]*)(:?)(.*)", host, re.DOTALL).groups()  # type: ignore[union-attr]
    if not re.fullmatch(r"\[[0-9A-Za-z:.%]+\]|[^][:/@?#\s\x00-\x1f]+", name):
        raise UsageError(f"URL {host!r}: {name!r} is not a host; expected {URL_FORMS}; an IPv6 address in brackets")
    if not colon and not port:
        return f"{host}:{default}"
    if not (colon and re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise UsageError(f"URL {host!r}: {port!r} is not a port; expected 1 to 65535")
    return host
