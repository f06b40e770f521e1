"""What is exported to ONNX: for each network a module, example inputs to trace it with, and its dynamic axes.

A network is exported in its lowered form (`gomin_export.lowering`) or in its plain one, in float32 or with float16
convolutions.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gomin_client.contract import model as contract
from gomin_client.contract.model import FP16, FP32
from gomin_export.choices import CPU, NATIVE, TARGETS
from gomin_export.lowering import LoweredDenoiser, LoweredGAN
from gomin_export.lowering.native import with_operators
from gomin_export.lowering.polyphase import ONNX_OPERATORS, OWN_OPERATORS
from gomin_export.lowering.residual import NativeDenoiser
from gomin_export.networks.diffusion import DiffusionWrapper, GomiDiff
from gomin_export.networks.gan import GomiGAN
from gomin_export.onnx.float16 import convolutions_to_float16

# Two is the smallest size that the exporter does not take for a constant.
_TRACED_BATCH = 2
_TRACED_FRAMES = 12


@dataclass(frozen=True)
class GraphOptions:
    """Choices that change the ONNX graph.

    Attributes:
        precision: one of `PRECISIONS`; inputs and outputs are float32 with each.
        lowering: export the lowered form of the network, not its plain one.
        target: one of `TARGETS`, the hardware that a network runs on. "cpu" uses Winograd convolutions, which do not
            help GPUs; "native" also our own operators (`onnx.operators`), which need their library.
    """

    precision: str = FP32
    lowering: bool = True
    target: str = TARGETS[0]


@dataclass(frozen=True)
class OnnxForm:
    """A module to be exported.

    Attributes:
        module: its forward method takes the inputs by name.
        inputs: input name → example to trace the module with.
        dynamic_axes: input name → axis → `torch.export.Dim`, or an expression of one.
        output: name of the output.
        keep_shapes: keep the shapes of values inside the graph; see `graph.forget_shapes`.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    dynamic_axes: Mapping[str, Mapping[int, Any]]
    output: str
    keep_shapes: bool = False


class DenoiserStep(nn.Module):
    """The denoiser with timesteps in a column, one for each item: Triton's tensors have the batch axis first."""

    def __init__(self, denoiser: GomiDiff | LoweredDenoiser | NativeDenoiser) -> None:
        super().__init__()
        self.model = denoiser  # its name in checkpoints

    def forward(self, signal: Tensor, timestep: Tensor, mel: Tensor) -> Tensor:
        """signal (B, 1, N), timestep (B, 1) float, mel (B, M, T) -> noise (B, 1, N).

        ONNX cannot raise errors: an item whose timestep is out of range gets NaN, and the other items their noise.
        Gather would take -1 for the last timestep, and its result beyond the table depends on the execution provider.
        """
        known = (timestep >= 0) & (timestep <= self.model.num_diffusion_steps - 1)  # (B, 1)
        noise = self.model(signal, torch.where(known, timestep, 0.0)[:, 0], mel)
        return torch.where(known[:, :, None], noise, torch.nan)


def vocoder_form(module: nn.Module, n_mels: int) -> OnnxForm:
    """The form of a module that makes the waveform in one pass: mel (B, M, T) -> audio (B, 1, hop_length·T)."""
    mel = torch.rand(_TRACED_BATCH, n_mels, _TRACED_FRAMES)
    dynamic = {contract.MEL: {0: torch.export.Dim("batch"), 2: torch.export.Dim("frames")}}
    return OnnxForm(module, {contract.MEL: mel}, dynamic, contract.AUDIO)


def gan_form(network: GomiGAN, options: GraphOptions = GraphOptions()) -> OnnxForm:
    """The form of a FiLM-GAN: mel (B, M, T) -> audio (B, 1, hop_length·T).

    Raises:
        CheckpointError: a weight is too large for float16.
    """
    if options.lowering:
        for_cpus = options.target in (CPU, NATIVE)
        costs = OWN_OPERATORS if options.target == NATIVE else ONNX_OPERATORS
        module: nn.Module = LoweredGAN(network, fold=options.precision == FP32, winograd=for_cpus, costs=costs)
        if options.target == NATIVE:
            module = with_operators(module)
    else:
        module = copy.deepcopy(network)
    if options.precision == FP16:
        convolutions_to_float16(module)
    return vocoder_form(module, network.n_mels)


def denoiser_form(network: DiffusionWrapper, options: GraphOptions = GraphOptions()) -> OnnxForm:
    """The form of one denoiser step: signal (B, 1, N), timestep (B, 1), mel (B, M, T) -> noise (B, 1, N).

    Raises:
        CheckpointError: a weight is too large for float16.
    """
    fold = options.precision == FP32
    denoiser: GomiDiff | LoweredDenoiser | NativeDenoiser
    denoiser = LoweredDenoiser(network.model, fold) if options.lowering else copy.deepcopy(network.model)
    if options.target == NATIVE and isinstance(denoiser, LoweredDenoiser):
        denoiser = NativeDenoiser(denoiser)
    if options.precision == FP16:
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
    return OnnxForm(DenoiserStep(denoiser), inputs, dynamic, contract.NOISE, keep_shapes=True)
