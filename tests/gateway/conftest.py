"""One gateway in front of the shared server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway.running import Gateway, running
from tests.support import EXAMPLES, RunningServer


@pytest.fixture(scope="session")
def gateway(server: RunningServer) -> Iterator[Gateway]:
    with running([server.grpc]) as made:
        yield made


@pytest.fixture(scope="session")
def crow() -> bytes:
    """Half a second of sound."""
    return EXAMPLES[0].read_bytes()
