"""The outside of an ONNX file: names, types and axes of its tensors, and what runs it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import onnxruntime

from gomin_client.contract import model as contract
from gomin_client.contract.model import ModelContract
from gomin_export.errors import ParityError
from gomin_export.parity.gate import Inputs


def check_signature(path: Path, described: ModelContract, inputs: Inputs) -> dict[str, int]:
    """Check names, types and axes, and run the model once.

    Args:
        path: the ONNX file.
        described: what it is to be.
        inputs: what to feed it.

    Returns:
        Execution provider → how many operators it ran.

    Raises:
        ParityError: a tensor is missing, unexpected, or of another type; an axis is frozen that should be free.
    """
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(path.parent / "profile")
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common public base
        raise ParityError(f"{path.name}: ONNX Runtime cannot load it: {' '.join(str(error).split())}") from error
    profile: Path | None = None
    try:
        _check_tensors(path, session, described)
        try:
            session.run(None, dict(inputs))
        except Exception as error:
            raise ParityError(f"{path.name}: ONNX Runtime cannot run it: {' '.join(str(error).split())}") from error
    finally:
        profile = Path(session.end_profiling())
        events = json.loads(profile.read_text(encoding="utf-8"))
        profile.unlink()
    used = Counter(
        event["args"]["provider"]
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    )
    return dict(sorted(used.items()))


def _check_tensors(path: Path, session: onnxruntime.InferenceSession, described: ModelContract) -> None:
    """A dynamic axis (None) must have a name, not a size."""
    n_mels = described.mel.n_mels
    expected: dict[str, list[int | None]] = {contract.MEL: [None, n_mels, None]}
    if described.kind == contract.DENOISER:
        expected[contract.SIGNAL] = [None, 1, None]
        expected[contract.TIMESTEP] = [None, 1]
        expected[contract.NOISE] = [None, 1, None]
    else:
        expected[contract.AUDIO] = [None, 1, None]
    tensors = {tensor.name: tensor for tensor in (*session.get_inputs(), *session.get_outputs())}
    if set(tensors) != set(expected):
        raise ParityError(f"{path.name} has the tensors {sorted(tensors)}; expected {sorted(expected)}")
    for name, shape in expected.items():
        actual = [size if isinstance(size, int) else None for size in tensors[name].shape]
        if tensors[name].type != "tensor(float)" or actual != shape:
            raise ParityError(
                f"{path.name}: {name} is {tensors[name].type} {tensors[name].shape}; "
                f"expected tensor(float) with fixed sizes {shape}"
            )
