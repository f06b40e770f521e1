"""Our own ONNX operators, in the domain gomin: the nodes that the operators of `lowering.native` become."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from onnx.defs import OpSchema, register_schema
from onnxscript.values import Opset

import gomin_export.lowering.native  # noqa: F401  defines torch.ops.gomin

DOMAIN = "gomin"
VERSION = 1  # raised if an operator changes its meaning; the library has the version that it computes
OPERATORS = f"{DOMAIN} {VERSION}"

_FLOAT = ("T", ["tensor(float)"], "float32")
_OUTPUT = OpSchema.FormalParameter("y", "T", "of the shape of the first input")


def _register(name: str, description: str, **inputs: str) -> None:
    """Register the schema of an operator with onnx; a name that ends with _ is an optional input."""
    parameters = [
        OpSchema.FormalParameter(
            given.rstrip("_"),
            "T",
            meaning,
            param_option=OpSchema.FormalParameterOption.Optional
            if given.endswith("_")
            else OpSchema.FormalParameterOption.Single,
        )
        for given, meaning in inputs.items()
    ]
    register_schema(
        OpSchema(
            name,
            DOMAIN,
            VERSION,
            doc=description,
            inputs=parameters,
            outputs=[_OUTPUT],
            type_constraints=[_FLOAT],
        )
    )


_register("Snake", "v + sin²v with v = gain·u, or u", u="(B, C, T), or any shape without gain", gain_="(C,)")
_register(
    "AntiAliasedSnake",
    "zero-stuffing, filter, v + sin²v, filter, one sample in two",
    x="(B, C, T)",
    up="(C, 12) taps of the first filter",
    down="(C, 12) taps of the second filter",
)
_register("GatedTanh", "sigmoid(gate)·tanh(filtered)", gate="any shape", filtered="of the same shape")

_opset = Opset(DOMAIN, VERSION)


def _snake(u: Any, gain: Any = None) -> Any:
    return _opset.Snake(u) if gain is None else _opset.Snake(u, gain)


# PyTorch operator → function that makes its node
TRANSLATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.gomin.snake.default: _snake,
    torch.ops.gomin.anti_aliased_snake.default: _opset.AntiAliasedSnake,
    torch.ops.gomin.gated_tanh.default: _opset.GatedTanh,
}
