"""Small inferences that find a helper process which runs but never answers.

Triton's health endpoints do not show such a process: they go on reporting its model as ready. Nor does the lack of an
answer alone, since a request may wait for hours behind others. A helper is taken for stuck only if all of this holds
for the whole time limit:

- a small inference has been sent to its model and is unanswered, or is refused because the model's queue is full;
- no request to the model has been completed, by the server's statistics;
- the helper has been idle. It had a CPU for less than 2 % of the time, and a CPU or a place in the queue for one for
  less than half of the time; no thread waited for the disk. An idle helper uses 0.02 %, one that computes 100 %, or
  waits for a CPU. If the model may wait for other models, as models of the Python backend may, all processes of the
  server have been idle together.

So a helper that computes, however long, is left alone; one that computes without end is not found. A model with
several instances answers as long as one of them does. A server that has nothing to do for nobody gets no inferences.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from gomin_server.processes import IdleTime, Served, has_clients, used, waits_for_disk

CHECKS = 10  # within the time limit
SHORTEST_TIMEOUT_S = 2.0
LARGEST_INPUT = 100_000  # elements; a model that needs more gets no small inferences
REPLY_TIMEOUT_S = 1.0
# how Triton refuses a request that it cannot pass on: the model's queue is full, or the request waited too long
WAITING = (b"queue size", b"timeout expired")
JSON_TYPES = {"TYPE_BOOL": False, "TYPE_STRING": ""}  # of other types: 0
HOP_LENGTH = "gomin.hop_length"
SIGNAL = "signal"  # a tensor with that many samples for each frame of the mel


@dataclass(frozen=True)
class Service:
    """How the server is reached.

    Attributes:
        host: IP address of HTTP.
        port: Of HTTP.
        client_ports: TCP ports of HTTP and gRPC.
        headers: Secrets of restricted endpoints.
    """

    host: str
    port: int
    client_ports: Sequence[int]
    headers: Mapping[str, str]


@dataclass
class _Watch(IdleTime):
    """One version of a model, with the idle time of the processes that count.

    Attributes:
        pids: Its helper processes.
        config: The model's configuration, once it is known.
        probe: The connection of a small inference that waits for its answer.
        queue_full: Whether the last one was refused because the model's queue does not move.
        completed: What the model had completed when the first of them was sent.
    """

    pids: frozenset[int]
    config: Mapping[str, Any] | None = None
    probe: http.client.HTTPConnection | None = field(default=None, repr=False)
    queue_full: bool = False
    completed: int | None = None

    def close(self) -> None:
        if self.probe is not None:
            self.probe.close()
        self.probe, self.queue_full = None, False


class Prober:
    """Sends small inferences to the models of one server.

    Args:
        service: How the server is reached.
        limit_s: The time after which a helper that does not answer and is idle is taken for stuck.
    """

    def __init__(self, service: Service, limit_s: float) -> None:
        self._service = service
        self._limit_s = limit_s
        self._interval_s = limit_s / CHECKS
        self._watches: dict[Served, _Watch] = {}
        self._checked = time.monotonic()

    def silent(self, server: int, helpers: Mapping[int, Served]) -> list[str]:
        """The models whose helper process is stuck, or waits for one that is. Call it repeatedly.

        Args:
            server: Process id of the server.
            helpers: Process id of each helper → what it serves.
        """
        now = time.monotonic()
        if now < self._checked + self._interval_s:
            return []
        # if nobody checked for a while, for example because all of this was suspended, nothing is known of that time
        passed = min(now - self._checked, 2 * self._interval_s)
        self._checked = now
        pids: dict[Served, set[int]] = {}
        for pid, version in helpers.items():
            pids.setdefault(version, set()).add(pid)
        for version in set(self._watches) - set(pids):
            self._watches.pop(version).close()
        found = set()
        for version, own in pids.items():
            watch = self._watches.get(version)
            if watch is None or watch.pids != own:  # a model that was loaded again is another one
                if watch is not None:
                    watch.close()
                watch = self._watches[version] = _Watch(frozenset(own))
            if self._is_stuck(version, watch, passed, server, list(helpers)):
                found.add(version.model)
        return sorted(found)

    def close(self) -> None:
        """Close the connections of small inferences that are unanswered or whose answers were not read."""
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()

    def _is_stuck(self, version: Served, watch: _Watch, passed: float, server: int, helpers: Sequence[int]) -> bool:
        watch.idle_s += passed
        if watch.config is None:
            if watch.idle_s >= self._limit_s / 2:  # not sooner: a model that is being loaded shows none
                watch.config = self._config(version)
                watch.restart(watch.used)
            return False
        # others may do the work for which such a model waits; ours is the only backend known not to call models
        calls_models = watch.config.get("backend") != "onnxruntime"
        now_used = used([server] if calls_models else watch.pids)  # the helpers are children of the server
        disk_users = [server, *helpers] if calls_models else watch.pids
        idle = watch.was_idle(now_used) and not any(map(waits_for_disk, disk_users))
        if not idle:
            watch.restart(now_used)
            watch.queue_full = False
        if watch.probe is not None and select.select([watch.probe.sock], [], [], 0)[0]:
            refused = _is_refused(watch.probe)
            watch.close()
            watch.queue_full = refused and idle
            if not refused:
                watch.restart(now_used)
        waits = watch.probe is not None or watch.queue_full
        if waits and watch.idle_s >= self._limit_s:
            if watch.completed is not None and self._completed(version) == watch.completed:
                return True
            watch.close()  # it answers others, or the server says nothing: begin again
            watch.restart(now_used)
        elif watch.queue_full:
            self._send(version, watch)
        elif not waits and watch.idle_s >= self._limit_s / 2:
            watch.restart(now_used)
            if has_clients(server, self._service.client_ports):
                watch.completed = self._completed(version)
                self._send(version, watch)
        return False

    def _send(self, version: Served, watch: _Watch) -> None:
        """Send a small inference, without waiting for its answer."""
        assert watch.config is not None
        body = small_request(watch.config)
        if body is None or watch.completed is None:
            return
        probe = self._connection()
        try:
            headers = {**self._service.headers, "Content-Type": "application/json"}
            probe.request("POST", f"{_path(version)}/infer", body, headers)
        except OSError:
            probe.close()
        else:
            watch.probe = probe

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._service.host, self._service.port, timeout=REPLY_TIMEOUT_S)

    def _get(self, path: str) -> Any:
        """A JSON document of the server; None: it gives none within a second."""
        connection = self._connection()
        try:
            connection.request("GET", path, headers=dict(self._service.headers))
            reply = connection.getresponse()
            return json.loads(reply.read()) if reply.status == http.HTTPStatus.OK else None
        except (OSError, ValueError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _config(self, version: Served) -> Mapping[str, Any] | None:
        found = self._get(f"{_path(version)}/config")
        return found if isinstance(found, dict) else None

    def _completed(self, version: Served) -> int | None:
        """A number that changes if the model completes a request; None: unknown."""
        found = self._get(f"{_path(version)}/stats")
        try:
            (statistics,) = found["model_stats"]
            return int(statistics["inference_stats"]["success"]["count"]) + int(statistics["execution_count"])
        except (TypeError, KeyError, ValueError):
            return None


def small_request(config: Mapping[str, Any]) -> bytes | None:
    """The smallest inference that a model's configuration allows: zeros, and 1 for each dimension that may vary.

    Args:
        config: The configuration, as Triton's HTTP endpoint shows it.

    Returns:
        A JSON request, or None: the model is not for single requests, or its smallest request is large.
    """
    if "sequence_batching" in config or config.get("model_transaction_policy", {}).get("decoupled"):
        return None
    parameters = {name: value.get("string_value", "") for name, value in config.get("parameters", {}).items()}
    hop = parameters.get(HOP_LENGTH, "1")
    inputs = []
    for tensor in config.get("input", ()):
        if tensor.get("optional"):
            continue
        least = int(hop) if tensor["name"] == SIGNAL and hop.isdecimal() else 1
        batch = [1] if config.get("max_batch_size", 0) else []
        shape = batch + [least if size < 0 else size for size in map(int, tensor["dims"])]
        if prod(shape) > LARGEST_INPUT:
            return None
        kind = tensor["data_type"]
        zero = JSON_TYPES.get(kind, 0)
        datatype = "BYTES" if kind == "TYPE_STRING" else kind.removeprefix("TYPE_")
        inputs.append({"name": tensor["name"], "shape": shape, "datatype": datatype, "data": [zero] * prod(shape)})
    # a chain of one step; other models ignore it
    steps = {"sampler": "ddim", "steps": 1} if parameters.get("gomin.kind") == "diffusion" else {}
    return json.dumps({"inputs": inputs, "parameters": steps}).encode()


def _path(version: Served) -> str:
    return f"/v2/models/{version.model}/versions/{version.version}"


def _is_refused(probe: http.client.HTTPConnection) -> bool:
    """Whether an inference was answered by the server because the model's queue is full or does not move."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        reply = probe.getresponse()
        text = b"" if reply.status == http.HTTPStatus.OK else reply.read()
        return any(reason in text for reason in WAITING)
    return False
