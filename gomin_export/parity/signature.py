"""The signature of an ONNX file: names, types and axes of its tensors; and the providers that run its operators."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import onnxruntime

from gomin_client.contract.model import ModelContract
from gomin_client.contract.signatures import SIGNATURES
from gomin_client.native.library import OperatorLibrary
from gomin_export.errors import ParityError, RepositoryError
from gomin_export.parity.gate import Inputs


def check_signature(
    path: Path, described: ModelContract, inputs: Inputs, library: OperatorLibrary | None = None
) -> dict[str, int]:
    """Check names, types and axes, and run the model once.

    Args:
        path: the ONNX file.
        described: the contract that it must have.
        inputs: tensors for the run.
        library: the library of its operators; None if it has only ONNX's.

    Returns:
        Execution provider → number of operators that it ran.

    Raises:
        ParityError: a tensor is missing, unexpected, or of another type; or a dynamic axis has a fixed size.
        RepositoryError: there is no room for a temporary file beside the model.
    """
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(path.parent / "profile")
    options.log_severity_level = 3
    if library is not None:
        library.register(options)
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common public base
        raise ParityError(f"{path.name}: ONNX Runtime cannot load it: {' '.join(str(error).split())}") from error
    try:
        _check_tensors(path, session, described)
        try:
            session.run(None, dict(inputs))
        except Exception as error:
            raise ParityError(f"{path.name}: ONNX Runtime cannot run it: {' '.join(str(error).split())}") from error
    finally:
        used = operators_run(session)
    return dict(sorted(Counter(provider for provider, _ in used.elements()).items()))


def operators_run(session: onnxruntime.InferenceSession) -> Counter[tuple[str, str]]:
    """(execution provider, type of operator) → how often it ran, of a session that profiles; ends the profiling.

    Raises:
        RepositoryError: the profile is incomplete. ONNX Runtime does not report that it cannot be written.
    """
    profile = Path(session.end_profiling())
    try:
        events = json.loads(profile.read_bytes())
    except ValueError as error:
        raise RepositoryError(f"{profile}: ONNX Runtime did not write it to its end: the disk may be full") from error
    profile.unlink()
    return Counter(
        (event["args"]["provider"], event["args"]["op_name"])
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    )


def _check_tensors(path: Path, session: onnxruntime.InferenceSession, described: ModelContract) -> None:
    expected = {tensor.name: [None, *tensor.sizes(described)] for tensor in SIGNATURES[described.kind].tensors}
    found = {tensor.name: tensor for tensor in (*session.get_inputs(), *session.get_outputs())}
    if set(found) != set(expected):
        raise ParityError(f"{path.name} has the tensors {sorted(found)}; expected {sorted(expected)}")
    for name, sizes in expected.items():
        actual = [size if isinstance(size, int) else None for size in found[name].shape]  # a dynamic axis has a name
        if found[name].type != "tensor(float)" or actual != sizes:
            raise ParityError(
                f"{path.name}: {name} is {found[name].type} {found[name].shape}; "
                f"expected tensor(float) with fixed sizes {sizes}"
            )
