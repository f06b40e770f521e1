"""Ways to a model: a Triton server over gRPC or HTTP, or in-process. To add one: a class, and a case in `connect`."""

from __future__ import annotations

from gomin_client.errors import UsageError
from gomin_client.transports.base import Transport

URL_FORMS = "grpc://HOST:PORT, http://HOST:PORT, local:DIRECTORY or HOST:PORT (gRPC)"


def connect(url: str) -> Transport:
    """Open the transport that a URL asks for; the server is not contacted yet.

    Args:
        url: one of `URL_FORMS`.

    Raises:
        UsageError: the URL has none of these forms.
    """
    scheme, separator, address = url.partition("://")
    if not separator:
        scheme, separator, address = ("local", ":", url[6:]) if url.startswith("local:") else ("grpc", "://", url)
    address = address if scheme == "local" else address.rstrip("/")
    if not address or (scheme != "local" and "/" in address):
        raise UsageError(f"URL {url!r}: expected {URL_FORMS}")
    # each imports its own half of tritonclient, or onnxruntime: only what is used
    if scheme == "local":
        from gomin_client.transports.local import LocalTransport

        return LocalTransport(address)
    if scheme == "grpc":
        from gomin_client.transports.triton import GrpcTransport

        return GrpcTransport(_with_port(address, 8001))
    if scheme == "http":
        from gomin_client.transports.triton import HttpTransport

        return HttpTransport(_with_port(address, 8000))
    raise UsageError(f"URL {url!r}: unknown scheme {scheme!r}; expected {URL_FORMS}")


def _with_port(address: str, default: int) -> str:
    """The address with the default port where it names none; an IPv6 address stands in brackets.

    Raises:
        UsageError: a port that is none; gRPC would take one above 65535 for another.
    """
    _, colon, port = address.rpartition("]")[2].rpartition(":")
    if not colon:
        return f"{address}:{default}"
    if not (port.isdecimal() and 0 < int(port) < 65536):
        raise UsageError(f"URL {address!r}: {port!r} is not a port; expected 1 to 65535")
    return address
