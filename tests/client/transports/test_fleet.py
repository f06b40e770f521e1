"""Three real servers behind one name, as a headless service of Kubernetes gives them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import UNPROBED, RunningServer, free_ports, serving, tool

pytestmark = [pytest.mark.server, pytest.mark.slow]

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
NAME = "gomin-fleet"
# Four callers, each with a mel of its own, until the standard input ends. In a process whose hosts file has the name.
CALLERS = """
import json, sys, threading, time
import numpy as np
from gomin_client import Vocoder

ended = threading.Event()
def call(caller):
    mel = np.random.default_rng(caller).uniform(0, 1, (128, 40)).astype(np.float32)
    with Vocoder(sys.argv[2]) as local:
        expected = local.synthesize(mel)
    count, difference = 0, 0.0
    with Vocoder(sys.argv[1]) as vocoder:
        while not ended.is_set() or count == 0:
            difference = max(difference, float(np.abs(vocoder.synthesize(mel) - expected).max()))
            count += 1
            time.sleep(0.03)
            if count == 3:
                print("started", flush=True)
    results[caller] = (count, difference)
results = {}
threads = [threading.Thread(target=call, args=(caller,)) for caller in range(4)]
for thread in threads: thread.start()
sys.stdin.read()
ended.set()
for thread in threads: thread.join()
print(json.dumps([results.get(caller) for caller in range(4)]))
"""


def completed(server: RunningServer) -> int:
    """Inferences that a server has completed since it started."""
    with urllib.request.urlopen(f"{server.http}/v2/models/gomin_gan/stats") as answer:
        return int(json.load(answer)["model_stats"][0]["inference_stats"]["success"]["count"])


def wait_for_work(server: RunningServer) -> None:
    """A server gets its share, also after a restart: gRPC finds out by itself, after up to some seconds."""
    deadline = time.monotonic() + 120
    while not completed(server):
        assert time.monotonic() < deadline, "no request came to a server"
        time.sleep(0.1)


def test_a_rolling_restart_loses_nothing(gan_repository: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{host} {NAME}\n" for host in HOSTS))
    trial = subprocess.run([tool("unshare"), "--mount", "mount", "--bind", hosts, "/etc/hosts"], check=False)
    if trial.returncode:
        pytest.skip("cannot make a mount namespace; run this test as root")
    (port,) = free_ports(1)

    with ExitStack() as stack:

        def started(host: str) -> tuple[ExitStack, RunningServer]:
            http, metrics = free_ports(2)
            inner = stack.enter_context(ExitStack())
            log = tmp_path / f"{host}-{http}.log"
            ports = (http, port, metrics)
            options = (UNPROBED, f"--host={host}", "--exit-timeout-secs=3")  # there is always work to complete
            return inner, inner.enter_context(serving(gan_repository, log, *options, ports=ports, host=host))

        with ThreadPoolExecutor(len(HOSTS)) as pool:
            servers = list(pool.map(started, HOSTS))
        callers = [sys.executable, "-c", CALLERS, f"dns:///{NAME}:{port}", f"local:{gan_repository}"]
        enter = 'mount --bind "$0" /etc/hosts && exec "$@"'
        command = [tool("unshare"), "--mount", "sh", "-c", enter, hosts, *callers]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        assert process.stdout is not None
        for _ in range(4):
            assert process.stdout.readline() == "started\n", process.communicate()[1]

        for index, host in enumerate(HOSTS):
            inner, server = servers[index]
            wait_for_work(server)  # every server has its share
            server.stop()
            inner.close()
            servers[index] = started(host)
            wait_for_work(servers[index][1])
        output, errors = process.communicate()

    assert process.returncode == 0, errors
    assert "Traceback" not in errors, errors
    results = json.loads(output)
    assert all(count > 3 for count, _ in results)
    assert all(difference <= 1e-5 for _, difference in results), results
