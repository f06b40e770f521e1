"""Export of a module to an ONNX file: tensor names, dynamic axes, names of nodes, metadata.

The files suit Triton's native onnxruntime backend (24.10: ONNX Runtime 1.19): IR version ≤ 10, opset ≤ 21, all output
shapes inferred, and a dynamic batch axis first on every tensor.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import torch
from onnx.external_data_helper import set_external_data

from gomin_export.onnx import graph, operators
from gomin_export.onnx.forms import OnnxForm
from gomin_export.repository.staging import write_file, writing

OPSET = 20
MAX_IR_VERSION = 10
MODEL_FILE = "model.onnx"
WEIGHTS_SUFFIX = ".data"  # of the file with the weights of a large model
MOST_WEIGHTS_INSIDE = 100_000_000  # bytes
_SMALLEST_BESIDE = 1024  # bytes of a tensor
_ALIGNMENT = 4096  # a page: the file is mapped into memory


def write(form: OnnxForm, path: Path, metadata: Mapping[str, str]) -> None:
    """Export a module to an ONNX file.

    Args:
        form: the module, example inputs and dynamic axes.
        path: the file; the weights of a large model go into a second file beside it.
        metadata: strings to store in the file.
    """
    with quiet_exporter():
        program = torch.onnx.export(
            form.module.eval(),
            args=(),
            kwargs=dict(form.inputs),
            dynamic_shapes=dict(form.dynamic_axes),
            input_names=list(form.inputs),
            output_names=[form.output],
            opset_version=OPSET,
            custom_translation_table=dict(operators.TRANSLATIONS),
            dynamo=True,
            optimize=True,
        )
    assert program is not None
    model = program.model_proto
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    graph.name_by_block(model.graph)
    graph.make_shapes_constant(model.graph)
    if not form.keep_shapes:
        graph.forget_shapes(model.graph)
    graph.strip_traces(model)
    graph.name_by_weights(model.graph)
    for name, value in sorted(metadata.items()):
        model.metadata_props.add(key=name, value=value)
    _save(model, path)


def _save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model, and the weights of a large one into a second file, which ONNX Runtime maps into memory.

    Weights inside the model file would take memory twice until a session is ready: as read, and as packed for the
    operators.
    """
    beside = path.with_name(path.name + WEIGHTS_SUFFIX)
    tensors = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= _SMALLEST_BESIDE]
    if sum(len(tensor.raw_data) for tensor in tensors) > MOST_WEIGHTS_INSIDE:
        # not by onnx.save: its file is readable by the owner only, and it looks for the file in the current directory
        with writing(beside), beside.open("wb") as file:
            for tensor in tensors:
                file.write(bytes(-file.tell() % _ALIGNMENT))
                set_external_data(tensor, beside.name, offset=file.tell(), length=len(tensor.raw_data))
                file.write(tensor.raw_data)
                tensor.ClearField("raw_data")
    else:
        beside.unlink(missing_ok=True)
    write_file(path, model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence the exporter's progress lines and deprecation warnings, which do not concern our users."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
