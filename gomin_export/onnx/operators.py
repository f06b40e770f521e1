"""Our own ONNX operators, in the domain gomin: the nodes that the operators of `lowering.native` become."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from onnx import helper
from onnx.defs import OpSchema, register_schema
from onnxscript.values import Opset

import gomin_export.lowering.native  # defines torch.ops.gomin
import gomin_export.lowering.residual  # noqa: F401  more of them

DOMAIN = "gomin"
VERSION = 1  # raised if an operator changes its meaning; the library has the version that it computes
OPERATORS = f"{DOMAIN} {VERSION}"

_FLOAT = ("T", ["tensor(float)"], "float32")
_OUTPUT = OpSchema.FormalParameter("y", "T", "like the first input, except for filters over rows and Interleave")


def _register(name: str, description: str, attributes: Mapping[str, int] = {}, **inputs: str) -> None:
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
            attributes=[
                OpSchema.Attribute(given, helper.make_attribute(given, default))
                for given, default in attributes.items()
            ],
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
_PADDING = {"left": 0, "right": 0}
_register(
    "RowFilter",
    "a filter over rows and columns, plus the summand",
    _PADDING,
    x="(B, R, 1, C, J)",
    weight="(R', R, K)",
    summand_="of the shape of y",
)
_register(
    "SnakeFilter",
    "AntiAliasedSnake on four phases, then RowFilter",
    _PADDING,
    x="(B, 4, 1, C, J)",
    up="(C, 12) taps of the first filter",
    down="(C, 12) taps of the second filter",
    weight="(R, 4, K)",
)
_register(
    "RowFilterPair",
    "RowFilter, v + sin²v, RowFilter",
    {"first_left": 0, "first_right": 0, **_PADDING},
    x="(B, R, 1, C, J)",
    first="(R', R, K) of the first filter",
    weight="(R″, R', K')",
)
_register(
    "Interleave",
    "phases in order, times 1 + scale, plus the shift",
    {"phases": 1, "trim": 0},
    x="(B, phases·C, J), rows p·C + c for phase p of channel c",
    modulation_="(B, 2·C, N), scales and shifts",
)
_register(
    "ResidualLayer",
    "a layer of the denoiser; weights in groups of six rows",
    {"dilation": 1},
    state="(B, 2R, N), the signal and the sum of the skips",
    step="(B, R)",
    conditioner="(B, M, N)",
    dilated="(6, groups, 2, R, 6) weights at the points of F(4, 3)",
    bias="(groups, 2, 6)",
    projection="(groups, 2, M, 6)",
    output="(groups, 2, R, 6)",
    output_bias="(groups, 2, 6)",
)
_register(
    "Modulation",
    "FiLM of the signal in a state",
    state="(B, 2R, N)",
    conditioner="(B, M, N)",
    projection="(groups, 2, M, 6)",
    bias="(groups, 2, 6)",
)

_opset = Opset(DOMAIN, VERSION)


def _snake(u: Any, gain: Any = None) -> Any:
    return _opset.Snake(u) if gain is None else _opset.Snake(u, gain)


def _row_filter(x: Any, weight: Any, summand: Any, left: int, right: int) -> Any:
    return _opset.RowFilter(x, weight, summand, left=left, right=right)


def _snake_filter(x: Any, up: Any, down: Any, weight: Any, left: int, right: int) -> Any:
    return _opset.SnakeFilter(x, up, down, weight, left=left, right=right)


def _row_filter_pair(x: Any, first: Any, weight: Any, paddings: Sequence[int]) -> Any:
    names = ("first_left", "first_right", "left", "right")
    return _opset.RowFilterPair(x, first, weight, **dict(zip(names, paddings, strict=True)))


def _interleave(x: Any, modulation: Any, phases: int, trim: int) -> Any:
    given = (x,) if modulation is None else (x, modulation)
    return _opset.Interleave(*given, phases=phases, trim=trim)


def _residual_layer(state: Any, step: Any, conditioner: Any, weights: Sequence[Any], dilation: int) -> Any:
    return _opset.ResidualLayer(state, step, conditioner, *weights, dilation=dilation)


# PyTorch operator → function that makes its node
TRANSLATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.gomin.snake.default: _snake,
    torch.ops.gomin.anti_aliased_snake.default: _opset.AntiAliasedSnake,
    torch.ops.gomin.row_filter.default: _row_filter,
    torch.ops.gomin.snake_filter.default: _snake_filter,
    torch.ops.gomin.row_filter_pair.default: _row_filter_pair,
    torch.ops.gomin.interleave.default: _interleave,
    torch.ops.gomin.residual_layer.default: _residual_layer,
    torch.ops.gomin.modulation.default: _opset.Modulation,
}
