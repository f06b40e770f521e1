"""The settings of a gateway."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gomin_client.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """What one gateway takes.

    Attributes:
        body_bytes: of one request.
        audio_s: duration of the audio of one request, all channels together, in seconds.
        concurrent: number of requests that are served at a time.
        deadline_s: time for one HTTP request from its first byte to its last, in seconds.
        idle_s: time to wait for a client that neither sends nor reads, in seconds.
        drain_s: time for requests in flight when the gateway is stopped, in seconds.
    """

    body_bytes: int = 100_000_000
    audio_s: float = 600.0
    concurrent: int = 4
    deadline_s: float = 600.0
    idle_s: float = 60.0
    drain_s: float = 30.0


class ApiKeys:
    """The keys that callers may use, kept as hashes; without any, everyone may call."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._hashes = [_hash(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def accept(self, key: str) -> bool:
        """Whether a key is one of them; takes the same time for all keys."""
        given = _hash(key)
        # all are compared, so that the time does not tell which one it is
        return sum(hmac.compare_digest(known, given) for known in self._hashes) > 0

    @classmethod
    def from_file(cls, path: Path) -> ApiKeys:
        """The keys in a file, one in each line; empty lines and those that begin with # are skipped.

        Raises:
            UsageError: it cannot be read, has no keys, or a key that cannot be sent in a header.
        """
        try:
            lines = [line.strip() for line in path.read_text().splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise UsageError(f"--api-key-file {path}: cannot be read: {reason}") from error
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise UsageError(f"--api-key-file {path}: has no keys; expected one in each line")
        if any(not key.isascii() or not key.isprintable() or " " in key for key in keys):
            raise UsageError(f"--api-key-file {path}: expected keys of printable ASCII without spaces")
        return cls(keys)


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
