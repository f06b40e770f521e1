"""How a server is reached: time limits, headers, TLS."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from os import PathLike
from pathlib import Path

from gomin_client.errors import UsageError


@dataclass(frozen=True)
class Connection:
    """Time limits for servers, and the headers and certificates that they ask for.

    Attributes:
        wait_s: time to wait for a server and its model to become ready at the first contact, in seconds.
        retry_for_s: time to repeat requests after a server that was ready cannot be reached, or reports that it is
            unavailable, in seconds. Requests have no effects, so one that was lost is sent again.
        timeout_s: deadline of one request, in seconds; None for a minute, plus another minute for every second of audio
            and step of a sampling chain. A request that took too long is not repeated.
        headers: sent with every request: HTTP headers, gRPC metadata. Names become lower case.
        tls: use TLS for gRPC URLs that do not say so themselves; grpcs:// and https:// do.
        ca: PEM file of the authorities that sign server certificates; None for the system's (gRPC: its own list).
        certificate: PEM file of this client's certificate chain, for servers that ask for one.
        key: PEM file of its private key.

    Raises:
        UsageError: a negative number of seconds; a header that cannot be sent; a certificate without a key, or the
            reverse.
    """

    wait_s: float = 0.0
    retry_for_s: float = 120.0
    timeout_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        for name in ("wait_s", "retry_for_s"):
            seconds = getattr(self, name)
            if not isinstance(seconds, Real) or not 0 <= float(seconds) < float("inf"):
                raise UsageError(f"{name} is {seconds!r}; expected a number of seconds, 0 or more")
        timeout: object = self.timeout_s
        if timeout is not None and not (isinstance(timeout, Real) and 0 < float(timeout) < float("inf")):
            raise UsageError(f"timeout_s is {timeout!r}; expected a number of seconds above 0")
        for name in ("ca", "certificate", "key"):
            path = getattr(self, name)
            if not isinstance(path, str | PathLike | None):
                raise UsageError(f"{name} is {path!r}; expected the path of a PEM file")
            object.__setattr__(self, name, None if path is None else Path(path))
        if not isinstance(self.headers, Mapping):
            raise UsageError("headers: expected a mapping from names to values")
        headers = {_checked_name(name): _checked_value(value) for name, value in self.headers.items()}
        object.__setattr__(self, "headers", headers)
        if (self.certificate is None) != (self.key is None):
            raise UsageError("a client certificate and its private key go together: give both `certificate` and `key`")

    @property
    def wants_tls(self) -> bool:
        """Whether any setting needs TLS."""
        return self.tls or self.ca is not None or self.certificate is not None

    def refuse_tls(self, url: str) -> None:
        """For a transport without TLS.

        Raises:
            UsageError: there are TLS settings.
        """
        if self.wants_tls:
            raise UsageError(f"URL {url!r}: TLS options are for grpcs://, https:// and dns: URLs")

    def refuse_headers(self, url: str) -> None:
        """For a transport without a server.

        Raises:
            UsageError: there are headers.
        """
        if self.headers:
            raise UsageError(f"URL {url!r}: headers are for servers")


def parse_headers(lines: Sequence[str]) -> dict[str, str]:
    """Headers as people type them: "NAME: VALUE", or @FILE with one on each line, so that secrets stay off the screen.

    Raises:
        UsageError: a line that is not a header, or a file that cannot be read.
    """
    headers: dict[str, str] = {}
    for line in lines:
        for given in _lines_of(line):
            name, colon, value = given.partition(":")
            if not colon:
                raise UsageError("--header: expected 'NAME: VALUE', or @FILE")
            headers[_checked_name(name)] = _checked_value(value)
    return headers


def _checked_name(name: str) -> str:
    """A name that both HTTP and gRPC take, in lower case."""
    if not isinstance(name, str) or not re.fullmatch(r"[0-9A-Za-z_.-]+", name):
        raise UsageError("a header's name: expected letters, digits, '_', '.' and '-'")
    if name.lower().endswith("-bin") or name.lower().startswith("grpc-"):
        raise UsageError(f"header {name}: names that end in -bin or begin with grpc- are gRPC's own")
    return name.lower()


def _checked_value(value: str) -> str:
    """The message does not repeat it: it may be secret."""
    if not isinstance(value, str) or not re.fullmatch(r"[ -~]*", value):
        raise UsageError("a header's value: expected printable ASCII")
    return value.strip()


def _lines_of(line: str) -> list[str]:
    if not line.startswith("@"):
        return [line]
    try:
        return [given for given in Path(line[1:]).read_text().splitlines() if given.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--header {line}: cannot be read: {error}") from error
