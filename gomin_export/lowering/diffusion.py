"""FiLM-DiffWave in its exported form: constant factors folded into weights, operators that ONNX Runtime fuses."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gomin_export.lowering.folding import scale_inputs, scale_outputs
from gomin_export.networks.diffusion import FILM_SCALE, LEAK, GomiDiff, ResidualLayer, SpectrogramUpsampler


def image_conv(conv: nn.Conv1d, rows: slice = slice(None)) -> nn.Conv2d:
    """A layer over (B, C, N) as a layer over (B, C, 1, N), with all or some of its outputs.

    ONNX Runtime's CPU provider keeps 2-D convolutions in blocks of channels, without copies of their inputs, and fuses
    additions and activations into them. It does not do so for 1-D convolutions.
    """
    (kernel,), (dilation,), padding = conv.kernel_size, conv.dilation, int(conv.padding[0])
    outputs = len(conv.weight[rows])
    part = nn.Conv2d(
        conv.in_channels, outputs, (1, kernel), padding=(0, padding), dilation=(1, dilation), bias=conv.bias is not None
    )
    part.weight.data = conv.weight.data[rows, :, None].clone()
    if conv.bias is not None:
        assert part.bias is not None
        part.bias.data = conv.bias.data[rows].clone()
    return part


def halves(conv: nn.Conv1d) -> tuple[nn.Conv2d, nn.Conv2d]:
    """A layer as two layers with half of the outputs each, which replaces a split of its outputs."""
    middle = conv.out_channels // 2
    return image_conv(conv, slice(middle)), image_conv(conv, slice(middle, None))


class LoweredResidualLayer(nn.Module):
    """`ResidualLayer` i with its input scaled by √2ⁱ, which also adds to the skips; the last has no residual."""

    def __init__(self, layer: ResidualLayer, gain: float, shrink: float, last: bool) -> None:
        """Args: gain: √2ⁱ, or 1 without folding; shrink: remaining factor of the division by √2."""
        super().__init__()
        self.shrink = shrink
        self.dilated_conv = nn.ModuleList(halves(scale_inputs(copy.deepcopy(layer.dilated_conv), 1 / gain)))
        self.diffusion_projection = scale_outputs(copy.deepcopy(layer.diffusion_projection), gain)
        self.conditioner_projection = nn.ModuleList(halves(layer.conditioner_projection))
        residual, self.skip_projection = halves(layer.output_projection)
        self.residual_projection = None if last else scale_outputs(residual, gain)

    def forward(self, x: Tensor, conditioner: Tensor, step: Tensor, skips: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, R, 1, N), conditioner (B, M, 1, N), step (B, E), skips (B, R, 1, N) -> x, skips."""
        y = x + self.diffusion_projection(step)[:, :, None, None]
        # this order limits memory: see LoweredDenoiser
        gate, filtered = (
            projection(conditioner) + conv(y)
            for conv, projection in zip(self.dilated_conv, self.conditioner_projection, strict=True)
        )
        gated = torch.sigmoid(gate) * torch.tanh(filtered)
        skip = self.skip_projection(gated)
        skips = skip if skips is None else skips + skip
        if self.residual_projection is not None:
            x = self.residual_projection(gated) + x
            x = x if self.shrink == 1 else self.shrink * x
        return x, skips


class LoweredUpsampler(nn.Module):
    """`SpectrogramUpsampler` as convolutions from all bands to the samples of a frame in all bands.

    Most of their weights are 0, but they take a quarter of the time: a transposed convolution with one channel does not
    run as a matrix product.
    """

    def __init__(self, upsampler: SpectrogramUpsampler, n_mels: int) -> None:
        super().__init__()
        self.conv1 = _dense(upsampler.conv1, n_mels)
        self.conv2 = _dense(upsampler.conv2, n_mels)

    def forward(self, mel: Tensor) -> Tensor:
        """(B, M, T) -> (B, M, N)."""
        n_mels = mel.shape[1]
        for conv in (self.conv1, self.conv2):
            samples = torch.unflatten(F.leaky_relu(conv(mel), LEAK), 1, (n_mels, -1))  # (B, M, stride, T)
            mel = samples.transpose(2, 3).flatten(2)
        return mel


def _dense(conv: nn.ConvTranspose2d, n_mels: int) -> nn.Conv1d:
    """(B, 1, M, T) -> (B, 1, M, stride·T) as a layer (B, M, T) -> (B, M·stride, T) of three taps."""
    # impulse responses of the layer: each band in the second of three frames
    impulses = torch.zeros(n_mels, 1, n_mels, 3, dtype=torch.float64)
    impulses[torch.arange(n_mels), 0, torch.arange(n_mels), 1] = 1
    stride, padding = (tuple(int(size) for size in sizes) for sizes in (conv.stride, conv.padding))
    responses = F.conv_transpose2d(impulses, conv.weight.double(), None, stride, padding)[:, 0]
    responses = torch.unflatten(responses, 2, (3, stride[1]))  # (band in, band, frame, sample)
    dense = nn.Conv1d(n_mels, n_mels * stride[1], 3, padding=1)
    # tap t multiplies the frame at offset t - 1, which is the impulse's for frame 2 - t
    dense.weight.data = responses.flip(2).permute(1, 3, 0, 2).flatten(0, 1).to(conv.weight.dtype)
    assert conv.bias is not None
    assert dense.bias is not None
    dense.bias.data = conv.bias.data.expand(dense.out_channels).clone()
    return dense


class LoweredDenoiser(nn.Module):
    """`GomiDiff` rewritten. Modules keep their names in a checkpoint.

    If `fold` is set, three factors are folded into weights: FiLM's 1 + 0.01·scale, into the 1×1 convolution that makes
    the scale; the division of the summed skips; and the division by √2 in every layer. Layer i works on √2ⁱ·x, so that
    a step is one addition, and its weights contain the inverse factor. √2³⁰ exceeds the range of float16. The last
    layer's residual has no reader and is not computed.

    Among the inputs of a node, ONNX Runtime first runs the one that comes last in the graph, with everything that it
    depends on. Nodes that can wait therefore come first in the graph. Otherwise the conditioners of all layers are
    computed before the first layer, all skips are summed after the last, and a call takes five times the memory
    (docs/export.md).
    """

    def __init__(self, denoiser: GomiDiff, fold: bool = True) -> None:
        super().__init__()
        residual_layers: Any = denoiser.residual_layers
        layers = len(residual_layers)
        gains = [math.sqrt(2.0) ** i if fold else 1.0 for i in range(layers)]
        self.num_diffusion_steps = denoiser.num_diffusion_steps
        self.cycle = denoiser.dilation_cycle_length
        shrink = 1.0 if fold else math.sqrt(0.5)
        self.diffusion_embedding = copy.deepcopy(denoiser.diffusion_embedding)
        self.spectrogram_upsampler = LoweredUpsampler(denoiser.spectrogram_upsampler, denoiser.in_channels)
        self.input_projection = image_conv(denoiser.input_projection)
        self.residual_layers = nn.ModuleList(
            [
                LoweredResidualLayer(layer, gain, shrink, last=i == layers - 1)
                for i, (layer, gain) in enumerate(zip(residual_layers, gains, strict=True))
            ]
        )
        films: Any = copy.deepcopy(denoiser.film_layers)
        for i, film in enumerate(films):
            half = film.out_channels // 2
            factors = torch.full((2 * half,), FILM_SCALE, dtype=torch.float64)
            factors[half:] = gains[i * self.cycle]
            scale_outputs(film, factors)
            film.bias.data[:half] += 1
        self.film_layers = nn.ModuleList([nn.ModuleList(halves(film)) for film in films])
        self.skip_projection = image_conv(scale_inputs(copy.deepcopy(denoiser.skip_projection), 1 / math.sqrt(layers)))
        self.output_projection = copy.deepcopy(denoiser.output_projection)

    def forward(self, signal: Tensor, timestep: Tensor, mel: Tensor) -> Tensor:
        """signal (B, 1, N), timestep (B,), mel (B, M, T) -> noise (B, 1, N)."""
        step = self.diffusion_embedding(timestep)
        conditioner = self.spectrogram_upsampler(mel).unsqueeze(2)
        x = F.relu(self.input_projection(signal.unsqueeze(2)))  # (B, R, 1, N)
        skips: Tensor | None = None
        films: Any = self.film_layers
        for i, layer in enumerate(self.residual_layers):
            film, position = divmod(i, self.cycle)
            if position == 0:
                scale, shift = films[film]
                x = shift(conditioner) + scale(conditioner) * x  # the scale includes the 1
            x, skips = layer(x, conditioner, step, skips)
        assert skips is not None  # there is at least one layer
        x = F.relu(self.skip_projection(skips))
        return self.output_projection(x.squeeze(2))  # type: ignore[no-any-return]
