"""Changes to a finished ONNX graph: readable names, constant shapes, no traces of the exporting machine."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Sequence, Set

import numpy as np
import onnx
from onnx import numpy_helper


def name_by_block(graph: onnx.GraphProto) -> None:
    """Name nodes and values after the module that made them: resblocks.3/snakes1.0/Sin.

    The exporter stores the path of modules with each node. Nodes made by its optimizer have none, and take the path of
    the node before.
    """
    blocks: dict[str, str] = {}  # value → block of the node that makes it
    taken: Counter[str] = Counter()
    renamed: dict[str, str] = {}
    fixed = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        notes = {note.key: note.value for note in node.metadata_props}
        if "pkg.torch.onnx.name_scopes" in notes:
            block = _block(ast.literal_eval(notes["pkg.torch.onnx.name_scopes"])[:-1])
        else:
            block = next((blocks[name] for name in node.input if name in blocks), "")
        name = block + node.op_type
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name] - 1}"
        for index, value in enumerate(node.output):
            blocks[value] = block
            if value and value not in fixed:
                renamed[value] = node.name if len(node.output) == 1 else f"{node.name}:{index}"
    for node in graph.node:
        node.input[:] = [renamed.get(value, value) for value in node.input]
        node.output[:] = [renamed.get(value, value) for value in node.output]
    for info in graph.value_info:
        info.name = renamed.get(info.name, info.name)


def name_by_weights(graph: onnx.GraphProto) -> None:
    """Put a digest of the weights into the graph's name.

    TensorRT's engine cache is shared by all versions of a model. ONNX Runtime names an engine by the names of the graph
    and its nodes, not by the weights (microsoft/onnxruntime#6455, #32254): without the digest, a new version would run
    with the engine, and so the weights, of the version before.
    """
    digest = hashlib.sha256()
    for tensor in graph.initializer:
        digest.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)} ".encode())
        digest.update(numpy_helper.to_array(tensor).tobytes())
    graph.name = f"{graph.name}_{digest.hexdigest()[:16]}"


def make_shapes_constant(graph: onnx.GraphProto) -> None:
    """Make the shapes of Reshape nodes constant if at most the batch and one other size are unknown.

    The exporter computes each shape from the sizes of the graph's inputs: a node for every reshape, which ONNX's shape
    inference cannot follow. The batch is the first axis of every tensor here; a size of 0 copies it.
    """
    made_by = {name: node for node in graph.node for name in node.output}
    inputs = {value.name for value in graph.input}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        shape = made_by.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None or shape.op_type != "Concat":
            continue
        sizes: list[int | None] = []
        for place, name in enumerate(shape.input):
            if name in constants:
                sizes += numpy_helper.to_array(constants[name]).tolist()
            elif not place and name in made_by and _is_batch(made_by[name], inputs):
                sizes.append(0)
            else:
                sizes.append(None)
        if sizes.count(None) + sizes.count(-1) > 1:
            continue
        name = f"{node.name}/shape"
        constant = np.array([-1 if size is None else size for size in sizes], np.int64)
        graph.initializer.append(numpy_helper.from_array(constant, name))
        node.input[1] = name
        del node.attribute[:]  # allowzero, which would make 0 a size
    _remove_unused(graph)


def _is_batch(node: onnx.NodeProto, inputs: Set[str]) -> bool:
    """Whether a node returns the first size of one of the graph's inputs."""
    limits = {attribute.name: attribute.i for attribute in node.attribute}
    return node.op_type == "Shape" and node.input[0] in inputs and limits == {"start": 0, "end": 1}


def _remove_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that no node reads."""
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):  # readers come after the nodes that they read
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(node.input)
    used = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.node[:]
    graph.node.extend(reversed(kept))
    if len(used) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(used)


def forget_shapes(graph: onnx.GraphProto) -> None:
    """Remove the shapes of values inside the graph; ONNX Runtime infers the ones that it needs.

    If two shapes are known to be equal, ONNX Runtime keeps the memory of one value for the other. A network whose
    values have many different lengths then holds memory for each length: without shapes the GAN's peak is a quarter
    lower, at the same speed. The denoiser keeps its shapes. Its values have one length, and ONNX Runtime fuses an
    addition into a convolution only if it knows that both shapes are equal.

    For our own operators ONNX Runtime infers nothing: their outputs keep the number of axes and the fixed sizes.
    """
    own = {value for node in graph.node if node.domain for value in node.output}
    kept = [info for info in graph.value_info if info.name in own]
    for info in kept:
        for size in info.type.tensor_type.shape.dim:
            size.ClearField("dim_param")
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _block(scopes: Sequence[str]) -> str:
    """Module paths from the outermost in, "", "resblocks.3", "resblocks.3.snakes1.0" -> "resblocks.3/snakes1.0/"."""
    parts, outer = [], ""
    for scope in scopes:
        if scope.startswith(outer) and scope != outer and not scope.startswith("_"):
            parts.append(scope[len(outer) :].lstrip("."))
            outer = scope
    return "".join(f"{part}/" for part in parts)


def strip_traces(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes, which contain stack traces with paths of the exporting machine."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
