"""Describes the machine that the figures were measured on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Set
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import THREADS
from benchmarks.worker import peak_mb
from tests.support import RunningServer

PACKAGES = ("gomin-triton", "torch", "onnxruntime-gpu", "openvino", "nvidia-pytriton", "numpy")
_SIZE = 1024
_COLUMNS = 4096


def facts() -> dict[str, Any]:
    """Processor, vector extensions, package versions, and the speed of matrix products."""
    found = _cpuinfo()
    flags = found.get("flags", "").split()
    return {
        "processor": processor(),
        "model": f"family {found.get('cpu family')}, model {found.get('model')}",
        "vector extensions": [name for name in ("avx2", "fma", "avx512f", "amx_tile") if name in flags],
        "threads": THREADS,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "sgemm_gflops": {"ONNX Runtime": _onnxruntime_gflops(), "PyTorch": _torch_gflops()},
    }


def processor() -> str:
    """Name of the processor."""
    return _cpuinfo().get("model name", platform.processor())


def _cpuinfo() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def cores(count: int, allowed: Set[int] | None = None, system: Path = Path("/sys/devices/system/cpu")) -> set[int]:
    """`count` CPUs that this process may use, on different cores as far as possible."""
    seen: Counter[str] = Counter()
    turns = []
    for cpu in sorted(os.sched_getaffinity(0) if allowed is None else allowed):
        siblings = system / f"cpu{cpu}/topology/thread_siblings_list"
        core = siblings.read_text() if siblings.exists() else str(cpu)
        turns.append((seen[core], cpu))  # a core's second CPU comes after the first CPU of every other core
        seen[core] += 1
    return {cpu for _, cpu in sorted(turns)[:count]}


def peak_of_server(server: RunningServer) -> float:
    """Peak memory of the server and its model processes so far in MB: the sum of each process's own peak."""
    total = 0.0
    for pid in processes(server):
        with suppress(OSError, LookupError):  # it has ended
            total += peak_mb(pid)
    return total


def processes(server: RunningServer) -> list[int]:
    """Ids of the processes of a server: the launcher, tritonserver, and the helper processes of its models."""
    found: list[int] = []
    waiting = [server.process.pid]
    while waiting:
        found.append(waiting.pop())
        with suppress(OSError):  # it has ended
            for thread in Path(f"/proc/{found[-1]}/task").iterdir():
                waiting += [int(child) for child in (thread / "children").read_text().split()]
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _onnxruntime_gflops() -> float:
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((_SIZE, _SIZE, 1), np.float32), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, _SIZE, _COLUMNS))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, _SIZE, _COLUMNS))
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "product", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {"x": np.ones((1, _SIZE, _COLUMNS), np.float32)}
    return _gflops(lambda: session.run(None, inputs))


def _torch_gflops() -> float:
    import torch

    torch.set_num_threads(THREADS)
    left, right = torch.ones(_SIZE, _SIZE), torch.ones(_SIZE, _COLUMNS)
    return _gflops(lambda: left @ right)


def _gflops(product: Callable[[], object]) -> float:
    """GFLOP/s from the median time of twenty products."""
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - started)
    return 2 * _SIZE * _SIZE * _COLUMNS / statistics.median(seconds) / 1e9
