"""Servers that hang while they load their models."""

import subprocess
import sys
import time
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from gomin_server import starting
from gomin_server.processes import used
from gomin_server.starting import CHECKS, StartWatch, unfinished
from tests.support import RunningServer

# of tritonserver 2.51 and, without quotes, of earlier ones
LOG = """\
I1129 04:42:06.233 1 model_lifecycle.cc:472] "loading: gomin_gan:1"
I1129 04:42:06.233 1 model_lifecycle.cc:472] loading: a model: of mine:12
I1129 04:42:06.233 1 model_lifecycle.cc:472] "loading: broken:1"
I1129 04:42:06.233 1 model_lifecycle.cc:472] "loading: gomin_mel:1"
E1129 04:42:06.233 1 model_lifecycle.cc:642] "failed to load 'broken' version 1: Invalid argument: no 'x'"
I1129 04:42:08.193 1 model_lifecycle.cc:839] "successfully loaded 'gomin_mel'"
I1129 04:42:08.193 1 model_lifecycle.cc:839] "loading: gomin_mel:-1"
"""


@pytest.mark.parametrize(
    ("lines", "expected"),
    [(3, ["gomin_gan", "a model: of mine", "broken"]), (6, ["gomin_gan", "a model: of mine"]), (0, [])],
)
def test_the_models_that_are_not_loaded_yet(lines: int, expected: list[str]) -> None:
    assert unfinished("".join(LOG.splitlines(keepends=True)[:lines])) == expected


def test_a_model_that_is_loaded_again() -> None:
    assert unfinished(LOG) == ["gomin_gan", "a model: of mine", "gomin_mel"]


def problem_of(watch: StartWatch) -> str:
    deadline = time.monotonic() + 60
    while (problem := watch.problem()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return problem


def test_idle_processes_are_reported_and_busy_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read(1)\nwhile True: pass"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
        ExitStack() as stack,
    ):
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        logs = ["loading: x:1\n", "loading: x:1\nloading: y:1\n", ""]
        found = [problem_of(StartWatch(process.pid, 0.1, log.__str__)) for log in logs]
        process.stdin.write(b"x")
        process.stdin.flush()
        now, step = 0.0, 0.5 / CHECKS
        monkeypatch.setattr(starting, "time", SimpleNamespace(monotonic=lambda: now))
        busy = StartWatch(process.pid, 0.5, str)
        for _ in range(3 * CHECKS):  # beyond the limit; time passes as the process gets a CPU
            end = used([process.pid]).ran_s + step
            while used([process.pid]).ran_s < end:
                time.sleep(step / 10)
            now += 1.01 * step
            assert busy.problem() is None
    hangs, idle = "the server hangs while it loads", "all its processes were idle for 0.1 s"
    assert found == [f"{hangs} {loading}: {idle}" for loading in ("model x", "models x, y", "its models")]


@pytest.mark.server
def test_the_log_of_a_real_server(server: RunningServer) -> None:
    text = server.wait_for_log("Started HTTPService at ")  # after it has loaded its models
    assert unfinished(text[: text.index("successfully loaded")]) != []
    assert unfinished(text) == []
