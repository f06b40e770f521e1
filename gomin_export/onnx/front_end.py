"""The mel front end as an ONNX model: audio (B, 1, N) -> mel (B, n_mels, 1 + N // hop_length).

It computes what `gomin_client.mel.features` computes, in float64 up to the last step: in float32 an STFT is off by 1e-3
where a band is nearly silent. ONNX Runtime has kernels for all its operators on the CPU only.

ONNX cannot raise errors, but a Gather fails if its index is out of bounds, and ONNX Runtime's message contains the name
of the node. So each condition on the audio is a Gather from a tensor of one element, named after what is wrong. What
they gather is the amount of padding, which the rest of the graph needs.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gomin_client.contract import model as contract
from gomin_client.contract.model import ModelContract
from gomin_client.mel import features
from gomin_export.onnx.export import MAX_IR_VERSION, OPSET

# Names of the nodes that fail: what users read in the error message.
EMPTY = "audio has no samples"
NOT_FINITE = "audio has samples that are NaN or infinite"
TOO_LONG = "audio of more than {} frames"  # all items of a request together

_Constants = dict[str, NDArray[np.float64] | NDArray[np.int64]]


def build(described: ModelContract) -> onnx.ModelProto:
    """The model, with its contract as metadata.

    Args:
        described: a contract of kind "mel". Longer audio than its bound makes the model fail.
    """
    config, bound = described.mel, described.max_frames
    assert bound is not None
    guards, guard_constants = _guards(config.hop_length, bound, config.n_fft // 2)
    mel, mel_constants = _mel(config)
    graph = helper.make_graph(
        [*guards, *mel],
        "mel front end",
        [helper.make_tensor_value_info(contract.AUDIO, TensorProto.FLOAT, ["batch", 1, "samples"])],
        [helper.make_tensor_value_info(contract.MEL, TensorProto.FLOAT, ["batch", config.n_mels, "frames"])],
        [numpy_helper.from_array(value, name) for name, value in {**guard_constants, **mel_constants}.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=MAX_IR_VERSION, producer_name="gomin-triton"
    )
    for name, value in sorted(described.to_parameters().items()):
        model.metadata_props.add(key=name, value=value)
    onnx.checker.check_model(model, full_check=True)
    return model


def serialized(described: ModelContract) -> bytes:
    """The ONNX file: the same bytes for the same contract and the same version of numpy."""
    return bytes(build(described).SerializeToString(deterministic=True))


def _guards(hop_length: int, bound: int, padding: int) -> tuple[list[onnx.NodeProto], _Constants]:
    """Nodes from audio to `padding`, which fail if the audio is not acceptable, and `wave` (B, N) float64."""
    node = helper.make_node
    nodes = [
        node("Size", [contract.AUDIO], ["size"]),
        node("Equal", ["size", "none"], ["is_empty"]),
        *_failing("is_empty", "padding_of_all", "padding_unless_empty", EMPTY),
        node("Shape", [contract.AUDIO], ["batch"], start=0, end=1),
        node("Shape", [contract.AUDIO], ["samples"], start=2, end=3),
        node("Div", ["samples", "hop_length"], ["whole_hops"]),
        node("Add", ["whole_hops", "one"], ["frames_of_one"]),
        node("Mul", ["batch", "frames_of_one"], ["frames_of_all"]),
        node("Greater", ["frames_of_all", "most_frames"], ["is_too_long_vector"]),
        node("Squeeze", ["is_too_long_vector"], ["is_too_long"]),
        *_failing("is_too_long", "padding_unless_empty", "padding_unless_long", TOO_LONG.format(bound)),
        node("Squeeze", [contract.AUDIO, "second_axis"], ["wave_float32"]),
        node("Cast", ["wave_float32"], ["wave"], to=TensorProto.DOUBLE),
        # a sum of magnitudes is finite in float64 if all of them are finite in float32
        node("ReduceL1", ["wave"], ["magnitude"], keepdims=0),
        node("IsNaN", ["magnitude"], ["has_nan"]),
        node("IsInf", ["magnitude"], ["has_infinity"]),
        node("Or", ["has_nan", "has_infinity"], ["is_not_finite"]),
        *_failing("is_not_finite", "padding_unless_long", "padding", NOT_FINITE),
    ]
    constants: _Constants = {
        "padding_of_all": np.array([0, padding, 0, padding], np.int64).reshape(1, 1, 1, 4),  # an axis for each guard
        "none": np.array(0, np.int64),
        "one": np.array([1], np.int64),
        "hop_length": np.array(hop_length, np.int64),
        "most_frames": np.array([bound], np.int64),
        "second_axis": np.array([1], np.int64),
    }
    return nodes, constants


def _failing(condition: str, value: str, output: str, name: str) -> list[onnx.NodeProto]:
    """Nodes that return the only element of a value's first axis, and fail if the condition is true."""
    return [
        helper.make_node("Cast", [condition], [f"{condition}_index"], to=TensorProto.INT64),
        helper.make_node("Gather", [value, f"{condition}_index"], [output], name=name, axis=0),
    ]


def _mel(config: features.MelConfig) -> tuple[list[onnx.NodeProto], _Constants]:
    """Nodes from `wave` and `padding` to the mel. See `features.mel_spectrogram`."""
    node = helper.make_node
    nodes = [
        node("Pad", ["wave", "padding"], ["padded"]),  # (B, N + n_fft)
        node("STFT", ["padded", "hop", "window", "n_fft"], ["spectrum"], onesided=1),  # (B, T, bins, 2)
        node("ReduceSumSquare", ["spectrum", "last_axis"], ["power"], keepdims=0),
        node("MatMul", ["power", "filters_per_floor"], ["bands"]),  # (B, T, n_mels)
        # from_power: log10(power + floor), minus log10(floor), is the logarithm of 1 + power / floor, 0 for silence
        node("Add", ["bands", "floor"], ["bands_above_floor"]),
        node("Log", ["bands_above_floor"], ["logarithm"]),
        node("Mul", ["logarithm", "per_range"], ["mel_float64"]),
        node("Cast", ["mel_float64"], ["mel_float32"], to=TensorProto.FLOAT),
        node("Transpose", ["mel_float32"], [contract.MEL], perm=[0, 2, 1]),
    ]
    constants: _Constants = {
        "hop": np.array(config.hop_length, np.int64),
        "window": features.hann_window(config),
        "n_fft": np.array(config.n_fft, np.int64),
        "last_axis": np.array([3], np.int64),
        "filters_per_floor": np.ascontiguousarray(features.mel_filters(config).T / features.FLOOR),  # (bins, n_mels)
        "floor": np.array(1.0),
        "per_range": np.array(10 / math.log(10) / features.RANGE_DB),
    }
    return nodes, constants
