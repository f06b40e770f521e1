"""Export of the networks to ONNX: tensor names, dynamic axes, names of nodes, metadata, number format.

Written for what Triton's native onnxruntime backend loads (24.10: ONNX Runtime 1.19): IR version ≤ 10, opset ≤ 21, all
output shapes inferred, and a dynamic batch first on every tensor.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx.external_data_helper import set_external_data
from torch import Tensor, nn

from gomin_client.contract import model as contract
from gomin_client.contract.model import FP16, FP32
from gomin_export.choices import CPU, TARGETS
from gomin_export.lowering import LoweredDenoiser, LoweredGAN
from gomin_export.networks.diffusion import DiffusionWrapper, GomiDiff
from gomin_export.networks.gan import GomiGAN
from gomin_export.onnx import graph
from gomin_export.onnx.float16 import convolutions_to_float16

OPSET = 20
MAX_IR_VERSION = 10
MODEL_FILE = "model.onnx"
WEIGHTS_SUFFIX = ".data"  # of the file beside it
MOST_WEIGHTS_INSIDE = 100_000_000  # bytes
_SMALLEST_BESIDE = 1024  # bytes of a tensor
_ALIGNMENT = 4096  # a page, for files are mapped into memory

# Two is the smallest size that the exporter does not take for a constant.
_TRACED_BATCH = 2
_TRACED_FRAMES = 12


class DenoiserStep(nn.Module):
    """The denoiser with one timestep per item in a column, as Triton wants tensors: a batch first."""

    def __init__(self, denoiser: GomiDiff | LoweredDenoiser) -> None:
        super().__init__()
        self.model = denoiser  # as it is named in checkpoints

    def forward(self, signal: Tensor, timestep: Tensor, mel: Tensor) -> Tensor:
        """signal (B, 1, N), timestep (B, 1) float, mel (B, M, T) -> noise (B, 1, N).

        ONNX cannot raise: an item whose timestep is out of range gets NaN, and its neighbours what is theirs. Left to
        Gather, -1 would be the last timestep, and what lies beyond the table depends on the execution provider.
        """
        known = (timestep >= 0) & (timestep <= self.model.num_diffusion_steps - 1)  # (B, 1)
        noise = self.model(signal, torch.where(known, timestep, 0.0)[:, 0], mel)
        return torch.where(known[:, :, None], noise, torch.nan)


@dataclass(frozen=True)
class Graph:
    """What an ONNX graph is made of.

    Attributes:
        precision: one of `PRECISIONS`; inputs and outputs are float32 either way.
        lowering: export the network's `gomin_export.lowering` form, not its plain one.
        target: one of `TARGETS`: where a GAN is to run. "cpu" has minimal filtering, which GPUs have no use for.
    """

    precision: str = FP32
    lowering: bool = True
    target: str = TARGETS[0]


def export_gan(network: GomiGAN, path: Path, metadata: Mapping[str, str], graph: Graph = Graph()) -> None:
    """Write a FiLM-GAN: mel (B, M, T) -> audio (B, 1, hop_length·T)."""
    if graph.lowering:
        module: nn.Module = LoweredGAN(network, fold=graph.precision == FP32, minimal=graph.target == CPU)
    else:
        module = copy.deepcopy(network)
    if graph.precision == FP16:
        convolutions_to_float16(module)
    export_gan_form(module, network.n_mels, path, metadata)


def export_gan_form(module: nn.Module, n_mels: int, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a module that computes what a FiLM-GAN does."""
    frames = torch.export.Dim("frames")
    mel = torch.rand(_TRACED_BATCH, n_mels, _TRACED_FRAMES)
    dynamic = {contract.MEL: {0: torch.export.Dim("batch"), 2: frames}}
    _export(module, {contract.MEL: mel}, dynamic, contract.AUDIO, path, metadata)


def export_denoiser(network: DiffusionWrapper, path: Path, metadata: Mapping[str, str], graph: Graph = Graph()) -> None:
    """Write one denoiser step: signal (B, 1, N), timestep (B, 1), mel (B, M, T) -> noise (B, 1, N)."""
    fold = graph.precision == FP32
    denoiser = LoweredDenoiser(network.model, fold) if graph.lowering else copy.deepcopy(network.model)
    if graph.precision == FP16:
        convolutions_to_float16(denoiser)
    batch, frames = torch.export.Dim("batch"), torch.export.Dim("frames")
    inputs = {
        contract.SIGNAL: torch.rand(_TRACED_BATCH, 1, network.hop_length * _TRACED_FRAMES),
        contract.TIMESTEP: torch.rand(_TRACED_BATCH, 1) * (network.model.num_diffusion_steps - 1),
        contract.MEL: torch.rand(_TRACED_BATCH, network.n_mels, _TRACED_FRAMES),
    }
    dynamic = {
        contract.SIGNAL: {0: batch, 2: network.hop_length * frames},
        contract.TIMESTEP: {0: batch},
        contract.MEL: {0: batch, 2: frames},
    }
    _export(DenoiserStep(denoiser), inputs, dynamic, contract.NOISE, path, metadata, keep_shapes=True)


def _export(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    dynamic: Mapping[str, Mapping[int, Any]],
    output: str,
    path: Path,
    metadata: Mapping[str, str],
    keep_shapes: bool = False,
) -> None:
    """Args: keep_shapes: of values inside the graph; see `graph.forget_shapes`."""
    with _quiet_exporter():
        program = torch.onnx.export(
            module.eval(),
            args=(),
            kwargs=dict(inputs),
            dynamic_shapes=dict(dynamic),
            input_names=list(inputs),
            output_names=[output],
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
        )
    assert program is not None
    model = program.model_proto
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    graph.name_by_block(model.graph)
    graph.make_shapes_constant(model.graph)
    if not keep_shapes:
        graph.forget_shapes(model.graph)
    graph.strip_traces(model)
    for name, value in sorted(metadata.items()):
        model.metadata_props.add(key=name, value=value)
    _save(model, path)


def _save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model, and the weights of a large one beside it: ONNX Runtime reads these where they lie.

    Weights inside the file it holds once more until a session is ready, beside the form that it runs them in.
    """
    beside = path.with_name(path.name + WEIGHTS_SUFFIX)
    tensors = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= _SMALLEST_BESIDE]
    if sum(len(tensor.raw_data) for tensor in tensors) > MOST_WEIGHTS_INSIDE:
        # not by onnx.save, which lets nobody but the owner read what it writes, and looks in the current directory
        with beside.open("wb") as file:
            for tensor in tensors:
                file.write(bytes(-file.tell() % _ALIGNMENT))
                set_external_data(tensor, beside.name, offset=file.tell(), length=len(tensor.raw_data))
                file.write(tensor.raw_data)
                tensor.ClearField("raw_data")
    else:
        beside.unlink(missing_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter prints progress and deprecations of its own insides; neither is for our users."""
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
