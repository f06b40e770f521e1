"""Vocoders in forked processes begin anew, or say that they cannot; nothing hangs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from gomin_client import UsageError, Vocoder
from gomin_client.transports import forking
from gomin_client.transports.forking import GRPC_FORK_SUPPORT, ForkGate, grpc_without_fork_handlers
from tests.support import ROOT, RunningServer


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["http", "local", "grpc"])
def test_a_fork(server: RunningServer, repository: Path, transport: str) -> None:
    url = f"local:{repository}" if transport == "local" else getattr(server, transport)
    command = [sys.executable, "-m", "tests.client.transports.forks", url]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1500, cwd=ROOT, check=False)

    assert result.returncode == 0, result.stderr
    said: dict[str, set[str]] = {}
    for line in result.stdout.splitlines():
        name = next(name for name in NAMES if line.startswith(f"{name} "))
        said.setdefault(name, set()).add(line.removeprefix(f"{name} "))
    assert set(said) == set(NAMES)
    assert said.pop("parent") == {"True"}
    assert said.pop("before") == {"(10240,)"}
    assert said.pop("threads") == {"1"}  # gRPC's would run, in the child, in a state that they do not expect
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


class TestForkGate:
    def test_a_fork_waits_for_work_and_work_for_the_fork(self) -> None:
        gate = ForkGate()
        order: list[str] = []
        begun, forked = threading.Event(), threading.Event()

        def work() -> None:
            with gate.work():
                begun.set()
                time.sleep(0.2)
                order.append("work done")
            assert forked.wait(60)
            with gate.work():
                order.append("more work")

        thread = threading.Thread(target=work)
        thread.start()
        assert begun.wait(60)
        gate.before_fork()
        order.append("fork")
        forked.set()
        time.sleep(0.1)
        assert order == ["work done", "fork"]
        gate.after_in_parent()
        thread.join()

        assert order == ["work done", "fork", "more work"]

    def test_a_child_of_work_that_does_not_end_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(forking, "LONGEST_WAIT_S", 0.05)
        gate = ForkGate()
        with gate.work():
            gate.before_fork()
            gate.after_in_child()

            assert gate.is_broken
            with gate.work():  # it begins anew all the same
                pass


def test_a_transport_in_such_a_child_raises(tiny_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking.ONNXRUNTIME, "is_broken", True)
    with Vocoder(f"local:{tiny_repository}") as vocoder, pytest.raises(UsageError, match="forked while ONNX Runtime"):
        vocoder.synthesize(np.zeros((vocoder.contract.mel.n_mels, 3), np.float32))


class TestGrpcWithoutForkHandlers:
    def test_the_variable_is_only_set_meanwhile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(GRPC_FORK_SUPPORT, raising=False)

        with grpc_without_fork_handlers():
            assert os.environ[GRPC_FORK_SUPPORT] == "0"
        assert GRPC_FORK_SUPPORT not in os.environ

    def test_a_value_of_the_program_is_respected(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(GRPC_FORK_SUPPORT, "1")

        with grpc_without_fork_handlers():
            assert os.environ[GRPC_FORK_SUPPORT] == "1"
        assert os.environ[GRPC_FORK_SUPPORT] == "1"


NAMES = ("closed afresh", "in use afresh", "inherited", "afresh", "stream", "in use", "parent", "closed", "before",
         "threads")  # fmt: skip


def only(outcomes: set[str]) -> str:
    (outcome,) = outcomes
    return outcome
