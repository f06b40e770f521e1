"""What a server opens, and to whom: which services leave this machine, and which requests need a secret.

tritonserver has no user accounts. By default all of its services listen on all networks, and whoever reaches them may
register shared memory, write traces to files of any name, change the log, and, with `--model-control-mode explicit`,
load models, which are code.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from gomin_server import ports
from gomin_server.arguments import all_values

# The option for a protocol, as tritonserver names it. Groups that an option restricts need a header with its secret.
RESTRICTIONS = ("--http-restricted-api", "--grpc-restricted-protocol")
ADMINISTRATION = ("shared-memory", "trace", "logging")
# Loading, unloading, and the index of models, which clients read. Without explicit mode the server refuses to load.
MODEL_CONTROL = "model-repository"
HEADER = "gomin-admin"

HTTP_WARNING = (
    "warning: Triton's HTTP port is open on {}. A single request of anyone who reaches it can end the server: a body "
    "of more than 4.2 MB with curl's default content type, deeply nested JSON, a huge shape, compressed JSON, or many "
    "small chunks. Open it to trusted networks only; see docs/security.md"
)
MODEL_CONTROL_NOTE = (
    "with --model-control-mode explicit, requests can load models, which are code. So these requests need a header, "
    "and so does the list of models, which clients read. Choose its secret with "
    + " and ".join(f"{option}={MODEL_CONTROL}:KEY=SECRET" for option in RESTRICTIONS)
    + "; --open-admin removes this protection"
)


def addresses(
    options: Mapping[str, str], host: str, *, expose_http: bool = False, metrics_host: str | None = None
) -> dict[str, str]:
    """The addresses of HTTP and metrics, as options of tritonserver, where `options` does not give them.

    Args:
        options: tritonserver's options, name (with dashes) → value.
        host: Address for gRPC.
        expose_http: Whether HTTP listens there too. Otherwise it listens on a loopback address.
        metrics_host: Address for metrics; None: a loopback address.
    """
    loopback = loopback_for(host)
    chosen = {"--http-address": host if expose_http else loopback, "--metrics-address": metrics_host or loopback}
    return {option: options.get(option, address) for option, address in chosen.items()}


def loopback_for(host: str) -> str:
    """The host itself if it is a loopback address, else the loopback address of the same IP version."""
    try:
        address = ports.resolve(host)
    except ports.AddressError:
        return "127.0.0.1"
    if address.is_loopback:
        return host
    return "::1" if address.version == 6 else "127.0.0.1"


def warnings(options: Mapping[str, str]) -> list[str]:
    """One line for each risk in the addresses of tritonserver's options."""
    http = options.get("--http-address", "0.0.0.0")
    if not ports.is_allowed("http", options) or http.startswith(ports.UNIX):
        return []
    try:
        exposed = not ports.resolve(http).is_loopback
    except ports.AddressError:
        return []
    return [HTTP_WARNING.format(http)] if exposed else []


def restrictions(arguments: Sequence[str], mode: str) -> list[str]:
    """Options of tritonserver that close the endpoints for administration with a fresh secret, which nobody knows.

    Groups that `arguments` restricts already keep their own secrets.

    Args:
        arguments: The options that are passed to tritonserver.
        mode: Its model control mode.
    """
    closed = [*ADMINISTRATION, MODEL_CONTROL] if mode == "explicit" else ADMINISTRATION
    secret = secrets.token_hex(16)
    found = []
    for option in RESTRICTIONS:
        theirs = {group for value in all_values(arguments, option) for group in value.partition(":")[0].split(",")}
        if ours := [group for group in closed if group not in theirs]:
            found.append(f"{option}={','.join(ours)}:{HEADER}={secret}")
    return found


def notes(added: Sequence[str]) -> list[str]:
    """What the user must know of restrictions."""
    return [MODEL_CONTROL_NOTE] if any(MODEL_CONTROL in option for option in added) else []


def secret_headers(arguments: Sequence[str]) -> dict[str, str]:
    """HTTP headers that open the endpoints which options of tritonserver restrict.

    Args:
        arguments: The options that are passed to tritonserver.
    """
    pairs = [value.partition(":")[2].partition("=") for value in all_values(arguments, RESTRICTIONS[0])]
    return {key: secret for key, _, secret in pairs if key}
