"""Names and shapes in exported graphs."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import onnx
import pytest
import torch

from gomin_export.networks import GomiGAN
from gomin_export.onnx import export as onnx_export
from gomin_export.onnx.forms import GraphOptions, gan_form
from tests.export.lowering.helpers import wide_gan


@pytest.fixture(scope="module")
def graph_for_cpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cpu") / "model.onnx"
    onnx_export.write(gan_form(wide_gan(), GraphOptions(target="cpu")), path, {})
    return path


def test_the_exported_graph_is_lowered_and_named_by_block(tiny_repository: str) -> None:
    graph = onnx.load(f"{tiny_repository}/gomin_gan/1/model.onnx").graph
    operators = {node.op_type for node in graph.node}
    names = [node.name for node in graph.node]

    # nothing that stuffs zeros, takes every second sample or computes with shapes
    assert operators == {"Add", "Conv", "ConvTranspose", "Mul", "Sin", "Split", "Tanh"}
    assert len(set(names)) == len(names)
    assert "resblocks.0/snakes1.0/snake/Sin" in names
    assert "film_generator.convs.0/ConvTranspose" in names
    blocks = {name.partition("/")[0].partition(".")[0] for name in names if "/" in name}
    assert blocks == {
        *("conv_pre", "conv_post", "film_generator", "films", "resblocks", "snake_post", "snake_ups", "ups")
    }
    known = {value.name for value in (*graph.input, *graph.initializer)} | {v for n in graph.node for v in n.output}
    assert {value for node in graph.node for value in node.input} <= known


def test_the_graph_is_named_by_its_weights(tiny_gan: GomiGAN, tiny_repository: str, tmp_path: Path) -> None:
    """Or TensorRT's engine cache would take the engine of one version for another."""
    other = copy.deepcopy(tiny_gan)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1
    exported = onnx.load(f"{tiny_repository}/gomin_gan/1/model.onnx").graph.name

    names = []
    for network in (tiny_gan, other):
        onnx_export.write(gan_form(network), tmp_path / "model.onnx", {})
        names.append(onnx.load(tmp_path / "model.onnx").graph.name)

    assert names[0] == exported
    assert names[1] != exported
    assert re.fullmatch(r"main_graph_[0-9a-f]{16}", exported)


def test_no_lowering_exports_the_plain_form(tiny_gan: GomiGAN, tmp_path: object) -> None:
    path = tmp_path / "plain.onnx"  # type: ignore[operator]

    onnx_export.write(gan_form(tiny_gan, GraphOptions(lowering=False)), path, {})

    assert {"Concat", "Slice", "Pow"} <= {node.op_type for node in onnx.load(path).graph.node}


def test_the_graph_knows_its_shapes(graph_for_cpus: Path) -> None:
    """With constant shapes in Reshape nodes, ONNX's shape inference can follow every value."""
    model = onnx.load(graph_for_cpus)
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
