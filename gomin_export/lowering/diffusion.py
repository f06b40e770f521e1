"""FiLM-DiffWave as it is exported: constant factors folded into weights."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gomin_export.lowering.folding import scale_inputs, scale_outputs
from gomin_export.networks.diffusion import FILM_SCALE, GomiDiff, ResidualLayer


class LoweredResidualLayer(nn.Module):
    """`ResidualLayer` on √2ⁱ times its input, i being its index; the last one makes no residual."""

    def __init__(self, layer: ResidualLayer, gain: float, last: bool) -> None:
        """Args: gain: √2ⁱ, or 1 not to fold anything."""
        super().__init__()
        self.last = last
        self.dilated_conv = scale_inputs(copy.deepcopy(layer.dilated_conv), 1 / gain)
        self.diffusion_projection = scale_outputs(copy.deepcopy(layer.diffusion_projection), gain)
        self.conditioner_projection = copy.deepcopy(layer.conditioner_projection)
        # two layers, so that their outputs need not be taken apart
        channels = layer.output_projection.in_channels
        if not last:
            self.residual_projection = scale_outputs(_rows(layer.output_projection, slice(channels)), gain)
        self.skip_projection = _rows(layer.output_projection, slice(channels, None))

    def forward(self, x: Tensor, conditioner: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, R, N), conditioner (B, M, N), step (B, E) -> what is added to x (B, R, N), skip (B, R, N)."""
        y = x + self.diffusion_projection(step)[:, :, None]
        # in this order, for memory: see LoweredDenoiser
        gate, filtered = (self.conditioner_projection(conditioner) + self.dilated_conv(y)).chunk(2, dim=1)
        y = torch.sigmoid(gate) * torch.tanh(filtered)
        skip = self.skip_projection(y)
        return (torch.zeros(()) if self.last else self.residual_projection(y)), skip


def _rows(conv: nn.Conv1d, rows: slice) -> nn.Conv1d:
    """A layer that makes a part of a layer's outputs."""
    part = copy.deepcopy(conv)
    part.weight.data = conv.weight.data[rows]
    if conv.bias is not None:
        assert part.bias is not None
        part.bias.data = conv.bias.data[rows]
    part.out_channels = len(part.weight)
    return part


class LoweredDenoiser(nn.Module):
    """`GomiDiff` rewritten. Modules keep the names that they have in a checkpoint.

    Folded into weights, where `fold` is set: FiLM's 1 + 0.01·scale, into the 1×1 convolution that makes the scale; the
    division of the summed skips; and the division by √2 in every layer: layer i works on √2ⁱ·x, where a step is one
    addition, and its weights take the factor back. The last layer's residual, which nothing reads, is not computed.
    float16 has no room for √2³⁰.

    Of the nodes that a node needs, ONNX Runtime runs the one that comes last in the graph first, with all that it needs
    in turn. So what can be put off comes first: otherwise the conditioners of all layers are computed before the first
    layer, the skips of all are summed after the last, and a call takes 5.6 times the memory (at the released size).
    """

    def __init__(self, denoiser: GomiDiff, fold: bool = True) -> None:
        super().__init__()
        residual_layers: Any = denoiser.residual_layers
        layers = len(residual_layers)
        gains = [math.sqrt(2.0) ** i if fold else 1.0 for i in range(layers)]
        self.num_diffusion_steps = denoiser.num_diffusion_steps
        self.cycle = denoiser.dilation_cycle_length
        self.shrink = 1.0 if fold else math.sqrt(0.5)
        self.diffusion_embedding = copy.deepcopy(denoiser.diffusion_embedding)
        self.spectrogram_upsampler = copy.deepcopy(denoiser.spectrogram_upsampler)
        self.input_projection = copy.deepcopy(denoiser.input_projection)
        self.residual_layers = nn.ModuleList(
            [
                LoweredResidualLayer(layer, gain, last=i == layers - 1)
                for i, (layer, gain) in enumerate(zip(residual_layers, gains, strict=True))
            ]
        )
        self.film_layers = copy.deepcopy(denoiser.film_layers)
        films: Any = self.film_layers
        for i, film in enumerate(films):
            half = film.out_channels // 2
            factors = torch.full((2 * half,), FILM_SCALE, dtype=torch.float64)
            factors[half:] = gains[i * self.cycle]
            scale_outputs(film, factors)
            film.bias.data[:half] += 1
        self.skip_projection = scale_inputs(copy.deepcopy(denoiser.skip_projection), 1 / math.sqrt(layers))
        self.output_projection = copy.deepcopy(denoiser.output_projection)

    def forward(self, signal: Tensor, timestep: Tensor, mel: Tensor) -> Tensor:
        """signal (B, 1, N), timestep (B,), mel (B, M, T) -> noise (B, 1, N)."""
        step = self.diffusion_embedding(timestep)
        conditioner = self.spectrogram_upsampler(mel)
        x = F.relu(self.input_projection(signal))
        skips = skip = None
        for i, layer in enumerate(self.residual_layers):
            film, position = divmod(i, self.cycle)
            if position == 0:
                scale, shift = self.film_layers[film](conditioner).chunk(2, dim=1)  # the scale has its 1
                x = scale * x + shift
            before = skip
            residual, skip = layer(x, conditioner, step)
            if before is not None:
                skips = before if skips is None else skips + before
            if not layer.last:
                x = x + residual if self.shrink == 1 else self.shrink * (x + residual)
        assert skip is not None  # there is at least one layer
        skips = skip if skips is None else skips + skip
        return self.output_projection(F.relu(self.skip_projection(skips)))  # type: ignore[no-any-return]
