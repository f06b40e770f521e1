"""Ways to a model: a Triton server over gRPC or HTTP, or in-process. To add one: a class, and a case in `_open`."""

from __future__ import annotations

from collections.abc import Sequence

from gomin_client.errors import UsageError
from gomin_client.transports.address import GRPC_SCHEMES, HTTP_SCHEMES, Address, parse
from gomin_client.transports.base import Transport
from gomin_client.transports.connection import Connection


def connect(url: str | Sequence[str], connection: Connection | None = None) -> Transport:
    """Open the transport that a URL asks for; the server is not contacted yet.

    Args:
        url: one of `address.URL_FORMS`; or several of gRPC servers that serve the same models, among which gRPC
            balances.
        connection: patience, headers, TLS; the defaults of `Connection` if left out.

    Raises:
        UsageError: a URL of no known form, several that do not go together, or a TLS file that cannot be read.
    """
    connection = connection or Connection()
    addresses = [parse(one) for one in ([url] if isinstance(url, str) else url)]
    if not addresses:
        raise UsageError("no URL: give at least one")
    if len(addresses) > 1 and not all(address.scheme in ("grpc", "grpcs") for address in addresses):
        raise UsageError(
            f"several URLs ({', '.join(address.url for address in addresses)}): only gRPC balances among servers, "
            "grpc:// or grpcs:// URLs; a name with several addresses is one URL, dns:///NAME:PORT"
        )
    if len({address.scheme for address in addresses}) > 1:
        raise UsageError("several URLs: either all with TLS, or none")
    return _open(addresses, connection)


def _open(addresses: list[Address], connection: Connection) -> Transport:
    """Each imports its own half of tritonclient, or onnxruntime: only what is used."""
    from gomin_client.transports.retrying import RetryingTransport

    scheme = addresses[0].scheme
    if scheme not in GRPC_SCHEMES and scheme != "https" and connection.wants_tls:
        raise UsageError(f"URL {addresses[0].url!r}: TLS options are for grpcs://, https:// and dns: URLs")
    if scheme == "local":
        from gomin_client.transports.local import LocalTransport

        if connection.headers:
            raise UsageError(f"URL {addresses[0].url!r}: headers are for servers")
        # what a repository cannot do now, it cannot do a moment later
        return RetryingTransport(LocalTransport(addresses[0].place), connection.wait_s, retry_for_s=0)
    inner: Transport
    if scheme in HTTP_SCHEMES:
        from gomin_client.transports.http import HttpTransport

        inner = HttpTransport(addresses[0], connection)
    else:
        from gomin_client.transports.grpc import GrpcTransport

        inner = GrpcTransport(addresses, connection)
    return RetryingTransport(inner, connection.wait_s, connection.retry_for_s)
