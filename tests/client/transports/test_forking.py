"""Vocoders in forked processes begin anew, or say that they cannot; nothing hangs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, RunningServer


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["http", "local", "grpc"])
def test_a_fork(server: RunningServer, repository: Path, transport: str) -> None:
    url = f"local:{repository}" if transport == "local" else getattr(server, transport)
    command = [sys.executable, "-m", "tests.client.transports.forks", url]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=ROOT, check=False)

    assert result.returncode == 0, result.stderr
    said: dict[str, set[str]] = {}
    for line in result.stdout.splitlines():
        name = next(name for name in NAMES if line.startswith(f"{name} "))
        said.setdefault(name, set()).add(line.removeprefix(f"{name} "))
    assert set(said) == set(NAMES)
    assert said.pop("parent") == {"True"}
    assert only(said.pop("stream")).startswith("UsageError a stream cannot be continued in a forked process")
    assert only(said.pop("closed")).endswith("has been closed")
    if transport == "grpc":
        for name, outcomes in said.items():
            assert only(outcomes).startswith("UsageError grpc://"), name
            assert "gRPC does not work in a process that was forked" in only(outcomes), name
    else:
        assert said == {
            "inherited": {"True"},
            "afresh": {"(10240,)"},
            "in use": {"(10240,)"},
            "in use afresh": {"(10240,)"},
            "closed afresh": {"(10240,)"},
        }


NAMES = ("closed afresh", "in use afresh", "inherited", "afresh", "stream", "in use", "parent", "closed")


def only(outcomes: set[str]) -> str:
    (outcome,) = outcomes
    return outcome
