"""URL schemes, and the transports that they open.

An own transport is a subclass of `base.Transport` and one call, after which `Vocoder("queue:jobs")` and
`gomin-client --url queue:jobs` use it:

    register("queue", lambda addresses, _: QueueTransport(addresses[0].place))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name

from gomin_client.errors import UsageError
from gomin_client.transports.address import Address, redacted, with_port
from gomin_client.transports.base import Transport
from gomin_client.transports.connection import Connection
from gomin_client.transports.retrying import RetryingTransport

Opener = Callable[[Sequence[Address], Connection], Transport]
Location = str | os.PathLike[str]  # a URL, or the directory of a model repository

URL_FORMS = "grpc://HOST:PORT, http://HOST:PORT, local:DIRECTORY or HOST:PORT (gRPC); grpcs:// and https:// for TLS"


@dataclass(frozen=True)
class Scheme:
    """How URLs of one scheme are opened.

    Attributes:
        opener: takes one address, or several if `balanced`, and the connection settings; returns a transport that makes
            one attempt at a time and contacts nothing yet. Or "module:function", imported when it is used.
        default_port: port of a server's URL without one; None if URLs of this scheme have no HOST:PORT.
        balanced: whether several servers can share the work.
        retried: whether failed requests are repeated for `Connection.retry_for_s`.
    """

    opener: Opener | str
    default_port: int | None = None
    balanced: bool = False
    retried: bool = True

    def load(self) -> Opener:
        """The opener; imports its module."""
        loaded: Opener = resolve_name(self.opener) if isinstance(self.opener, str) else self.opener
        return loaded


_GRPC = "gomin_client.transports.grpc:open_grpc"
_HTTP = "gomin_client.transports.http:open_http"
_DEFAULT = "grpc"  # the scheme of a URL without one
_SCHEMES = {
    "grpc": Scheme(_GRPC, 8001, balanced=True),
    "grpcs": Scheme(_GRPC, 8001, balanced=True),
    "dns": Scheme(_GRPC),
    "http": Scheme(_HTTP, 8000),
    "https": Scheme(_HTTP, 443),
    # what a repository cannot do now, it cannot do a moment later
    "local": Scheme("gomin_client.transports.local:open_local", retried=False),
}
_BUILT_IN = frozenset(_SCHEMES)


def register(scheme: str, opener: Opener, *, default_port: int | None = None, retried: bool = True) -> None:
    """Add a scheme, or replace one; see `Scheme`."""
    _SCHEMES[scheme] = Scheme(opener, default_port, retried=retried)


def parse(url: Location) -> Address:
    """Take a URL apart; a path is the directory of a model repository.

    Raises:
        UsageError: the URL has none of the known forms.
    """
    if isinstance(url, os.PathLike):
        return Address("local", os.fspath(url), has_host=False)
    if not isinstance(url, str):
        raise UsageError(f"URL {url!r}: expected a string or a path, not {type(url).__name__}")
    shown = redacted(url)
    name, colon, rest = url.partition(":")
    scheme = _SCHEMES.get(name) if colon else None
    if scheme is not None and scheme.default_port is None:
        if not rest:
            raise UsageError(f"URL {shown!r}: expected {URL_FORMS}")
        return Address(name, rest, has_host=False)
    if not rest.startswith("//"):
        name, rest = _DEFAULT, f"//{url}"
    elif scheme is None:
        own = [known for known in _SCHEMES if known not in _BUILT_IN]
        forms = f"{URL_FORMS}; or {', '.join(f'{known}:' for known in own)}" if own else URL_FORMS
        raise UsageError(f"URL {shown!r}: unknown scheme {name!r}; expected {forms}")
    host = rest.removeprefix("//").rstrip("/")
    port = _SCHEMES[name].default_port
    if not host or "/" in host or port is None:
        raise UsageError(f"URL {shown!r}: expected {URL_FORMS}")
    try:
        return Address(name, with_port(host, port))
    except UsageError as error:
        raise UsageError(f"URL {shown!r}: {error}; expected {URL_FORMS}") from error


def connect(url: Location | Sequence[Location] | Transport, connection: Connection | None = None) -> Transport:
    """Open the transport that a URL asks for; the server is not contacted yet.

    Args:
        url: one of `URL_FORMS`, or of a registered scheme; several of gRPC servers that serve the same models, among
            which gRPC balances; the path of a model repository; or a transport. One that this function opened is
            returned as it is, and repeats requests as it was told then.
        connection: time limits, headers, TLS; the defaults of `Connection` if left out.

    Raises:
        UsageError: a URL of no known form, several that do not go together, or a TLS file that cannot be read.
    """
    if not isinstance(connection, Connection | None):
        raise UsageError(f"connection {connection!r}: expected a `Connection`")
    connection = connection or Connection()
    if isinstance(url, RetryingTransport):  # a second one would repeat the repetitions
        return url
    if isinstance(url, Transport):
        return RetryingTransport(url, connection.wait_s, connection.retry_for_s)
    scheme, addresses = _located(url)
    transport = scheme.load()(addresses, connection)
    return RetryingTransport(transport, connection.wait_s, connection.retry_for_s if scheme.retried else 0)


def connect_once(url: Location | Sequence[Location], connection: Connection) -> Transport:
    """The transport that a URL asks for, without repetitions: a failed request is an error at once.

    `connect` takes it, and repeats requests; several `Vocoder`s can share it.

    Raises:
        UsageError: see `connect`.
    """
    scheme, addresses = _located(url)
    return scheme.load()(addresses, connection)


def _located(url: Location | Sequence[Location]) -> tuple[Scheme, list[Address]]:
    """The scheme of one URL or of several, and their addresses."""
    if not isinstance(url, str | os.PathLike | Iterable):
        raise UsageError(f"URL {url!r}: expected a string, a path, several of them, or a transport")
    addresses = [parse(one) for one in ([url] if isinstance(url, str | os.PathLike) else url)]
    if not addresses:
        raise UsageError("no URL: give at least one")
    schemes = {address.scheme for address in addresses}
    if len(addresses) > 1 and not all(_SCHEMES[name].balanced for name in schemes):
        raise UsageError(
            f"several URLs ({', '.join(address.url for address in addresses)}): only gRPC balances among servers, "
            "grpc:// or grpcs:// URLs; a name with several addresses is one URL, dns:///NAME:PORT"
        )
    if len(schemes) > 1:
        raise UsageError("several URLs: either all with TLS, or none")
    return _SCHEMES[schemes.pop()], addresses
