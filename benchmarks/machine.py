"""What the figures were measured on."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.worker import THREADS

PACKAGES = ("torch", "onnxruntime-gpu", "openvino", "nvidia-pytriton", "numpy")
_SIZE = 1024
_COLUMNS = 4096


def describe() -> dict[str, Any]:
    """Processor, vector extensions, versions, and what its matrix products reach."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    found = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = found.get("flags", "").split()
    return {
        "processor": found.get("model name", platform.processor()),
        "model": f"family {found.get('cpu family')}, model {found.get('model')}",
        "vector extensions": [name for name in ("avx2", "fma", "avx512f", "amx_tile") if name in flags],
        "threads": THREADS,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "sgemm_gflops": {"ONNX Runtime": _onnxruntime_gflops(), "PyTorch": _torch_gflops()},
    }


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
    """Of the median of twenty products."""
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - started)
    return 2 * _SIZE * _SIZE * _COLUMNS / statistics.median(seconds) / 1e9
