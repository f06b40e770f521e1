"""What the measurements need, and what of it this machine lacks: found before anything is measured."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Set

from benchmarks.gpu.variants import CUDA

PYTORCH, TENSORRT, SERVER = "pytorch", "tensorrt", "server"
PARTS = (PYTORCH, TENSORRT, SERVER)  # what --skip leaves out


def missing(device: str, skipped: Set[str]) -> list[str]:
    """One sentence for everything that is missing, with what to do."""
    found = []
    if device == CUDA:
        found += _cuda() or ([] if TENSORRT in skipped else _tensorrt())
    if PYTORCH not in skipped and device == CUDA:
        found += _pytorch()
    if SERVER not in skipped:
        found += _server()
    return found


def load_libraries() -> None:
    """Load the libraries of CUDA, cuDNN and TensorRT that pip installed, where ONNX Runtime finds them."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    with contextlib.suppress(ImportError):  # they may be installed in another way
        importlib.import_module("tensorrt")


def _cuda() -> list[str]:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ["no NVIDIA driver: libcuda.so.1 cannot be loaded (without a GPU, --device cpu tests this program)"]
    if _runs("CUDAExecutionProvider"):
        return []
    return [
        "ONNX Runtime cannot use CUDA, for the reason above: pip uninstall onnxruntime onnxruntime-gpu, then "
        "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    ]


def _tensorrt() -> list[str]:
    if _runs("TensorrtExecutionProvider"):
        return []
    return [
        "ONNX Runtime cannot use TensorRT, for the reason above: install the TensorRT that it was built for (for "
        "ONNX Runtime 1.31: pip install 'tensorrt-cu13==10.*'), or leave it out with --skip tensorrt"
    ]


def _runs(provider: str) -> bool:
    """Whether a session with one operator really has the provider: one that cannot be loaded is left out silently."""
    import onnxruntime
    from onnx import TensorProto, helper

    if provider not in onnxruntime.get_available_providers():
        return False
    load_libraries()
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 4)) for name in "xy")
    graph = helper.make_graph([helper.make_node("Sin", ["x"], ["y"])], "sine", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[provider])
    except Exception:  # ONNX Runtime's exceptions have no common public base; it has logged the reason
        return False
    return provider in session.get_providers()


def _pytorch() -> list[str]:
    import torch

    if torch.cuda.is_available():
        return []
    return [
        f"PyTorch {torch.__version__} cannot use CUDA: install a build for CUDA from pytorch.org, or leave it out with "
        "--skip pytorch"
    ]


def _server() -> list[str]:
    from gomin_server.installation import SetupError, find_server

    try:
        find_server()
    except SetupError as error:
        return [f"no server: {error}\n  install it, or leave it out with --skip server"]
    return []
