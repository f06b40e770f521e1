"""Names and shapes in exported graphs."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import onnx

from gomin_export.networks import GomiGAN
from gomin_export.onnx import export as onnx_export
from gomin_export.onnx import graph
from gomin_export.onnx.forms import GraphOptions, gan_form


def test_the_exported_graph_is_lowered_and_named_by_block(tiny_repository: str) -> None:
    exported = onnx.load(f"{tiny_repository}/gomin_gan/1/model.onnx").graph
    operators = {node.op_type for node in exported.node}
    names = [node.name for node in exported.node]

    # nothing that stuffs zeros, takes every second sample or computes with shapes
    assert operators == {"Add", "Conv", "ConvTranspose", "Mul", "Sin", "Split", "Tanh"}
    assert len(set(names)) == len(names)
    assert "resblocks.0/snakes1.0/snake/Sin" in names
    assert "film_generator.convs.0/ConvTranspose" in names
    blocks = {name.partition("/")[0].partition(".")[0] for name in names if "/" in name}
    assert blocks == {
        *("conv_pre", "conv_post", "film_generator", "films", "resblocks", "snake_post", "snake_ups", "ups")
    }
    known = {value.name for value in (*exported.input, *exported.initializer)}
    known |= {value for node in exported.node for value in node.output}
    assert {value for node in exported.node for value in node.input} <= known


def test_the_graph_is_named_by_its_weights(tiny_repository: str) -> None:
    """Or TensorRT's engine cache would take the engine of one version for another."""
    exported = onnx.load(f"{tiny_repository}/gomin_gan/1/model.onnx").graph
    names = []
    for change in (0, 1e-6):
        other = copy.deepcopy(exported)
        other.name = "main_graph"
        weight = next(tensor for tensor in other.initializer if tensor.name == "conv_post.weight")
        values = onnx.numpy_helper.to_array(weight).copy()
        values.flat[-1] += change
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        graph.name_by_weights(other)
        names.append(other.name)

    assert names[0] == exported.name
    assert names[1] != exported.name
    assert re.fullmatch(r"main_graph_[0-9a-f]{16}", exported.name)


def test_no_lowering_exports_the_plain_form(tmp_path: Path) -> None:
    path = tmp_path / "plain.onnx"
    network = GomiGAN(8, 8, (4, 2), (3,), ((1,),), hop_length=8, win_length=32).eval()

    onnx_export.write(gan_form(network, GraphOptions(lowering=False)), path, {})

    assert {"Concat", "Slice", "Pow"} <= {node.op_type for node in onnx.load(path).graph.node}


def test_the_graph_knows_its_shapes(repository_for_cpus: Path) -> None:
    """With constant shapes in Reshape nodes, ONNX's shape inference can follow every value."""
    model = onnx.load(repository_for_cpus / "gomin_gan/1/model.onnx")
    operators = {node.op_type for node in model.graph.node}

    constants = {tensor.name for tensor in model.graph.initializer}
    reshapes = [node for node in model.graph.node if node.op_type == "Reshape"]
    assert reshapes
    assert all(node.input[1] in constants for node in reshapes)
    assert not operators & {"Pad", "Gather"}
    assert not model.graph.value_info
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    assert all(value.type.tensor_type.HasField("shape") for value in inferred.graph.value_info)
    assert {name for node in model.graph.node for name in node.output} <= {
        value.name for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
