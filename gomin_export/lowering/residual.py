"""The denoiser's residual layer as a single operator of our own library, for ONNX Runtime on CPUs: `--target native`.

The layers take nearly all multiplications of the denoiser, and ONNX Runtime's convolutions run at the speed of the
machine's matrix products, so that only fewer multiplications make it faster. The operator computes the dilated
convolution by minimal filtering, F(4, 3), which needs half of them, and the whole layer in blocks that stay in the
processor's cache (native/residual.h). With the same filtering in ONNX operators, the transforms would go through memory
between operators, which takes most of the time that is saved, by the cost model in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gomin_export.lowering.diffusion import LoweredDenoiser, LoweredResidualLayer
from gomin_export.lowering.winograd import WinogradFilter

ROW_GROUP = 6  # kRowGroup in native/kernels.h
_OUTPUTS, _TAPS = 4, 3


def _grouped(first: Tensor, second: Tensor) -> Tensor:
    """Two halves of a layer's weights (…, R, inputs) or biases (R) in groups of rows; the last group is filled with 0.

    Returns:
        (…, groups, 2, inputs, ROW_GROUP), or (groups, 2, ROW_GROUP) for biases.
    """
    halves = torch.stack((first, second))  # (2, …, R[, inputs])
    if first.ndim == 1:
        halves = halves[..., None]
    padding = -halves.shape[-2] % ROW_GROUP
    rows = torch.unflatten(F.pad(halves, (0, 0, 0, padding)), -2, (-1, ROW_GROUP))  # (2, …, groups, ROW_GROUP, inputs)
    grouped = rows.movedim(0, -3).transpose(-1, -2)  # (…, groups, 2, inputs, ROW_GROUP)
    return (grouped[..., 0, :] if first.ndim == 1 else grouped).contiguous()


def _rows(grouped: Tensor, rows: int) -> Tensor:
    """The inverse of `_grouped`: (…, 2·rows, inputs)."""
    flat = grouped.transpose(-1, -2).movedim(-3, 0).flatten(-3, -2)[..., :rows, :]  # (2, …, rows, inputs)
    return torch.cat((flat[0], flat[1]), dim=-2)


@torch.library.custom_op("gomin::residual_layer", mutates_args=())
def residual_layer(
    state: Tensor,
    step: Tensor,
    conditioner: Tensor,
    weights: Sequence[Tensor],
    dilation: int,
) -> Tensor:
    """One residual layer: y = dilated(x + step) + projection(conditioner), then state + output(sigmoid·tanh(y)).

    Args:
        state: (B, 2R, N), the signal x and the sum of the skips.
        step: (B, R), added to x where the convolution does not see its zero padding.
        conditioner: (B, M, N).
        weights: in groups of six rows, as `_grouped` makes them: those of the convolution at the points of F(4, 3),
            (6, groups, 2, R, 6); the biases of the convolution and the projection, (groups, 2, 6); the projection,
            (groups, 2, M, 6); the output, (groups, 2, R, 6), and its biases, (groups, 2, 6).
        dilation: a power of 2.

    Returns:
        (B, 2R, N).
    """
    dilated, bias, projection, output, output_bias = weights
    channels = step.shape[1]
    points = _rows(dilated, channels)  # (6, 2R, R)
    taps = torch.linalg.pinv(WinogradFilter.of(_OUTPUTS, _TAPS).taps)  # (3, 6)
    kernel = torch.einsum("kp,poi->oik", taps, points.double()).to(points.dtype)
    y = state[:, :channels] + step[:, :, None]
    y = F.conv1d(y, kernel, _rows(bias[..., None, :], channels)[:, 0], padding=dilation, dilation=dilation)
    y = y + F.conv1d(conditioner, _rows(projection, channels)[..., None])
    gate, filtered = y.chunk(2, dim=1)
    gated = torch.sigmoid(gate) * torch.tanh(filtered)
    return state + F.conv1d(gated, _rows(output, channels)[..., None], _rows(output_bias[..., None, :], channels)[:, 0])


@torch.library.custom_op("gomin::modulation", mutates_args=())
def modulation(state: Tensor, conditioner: Tensor, projection: Tensor, bias: Tensor) -> Tensor:
    """FiLM: the signal x becomes scale·x + shift, where scale and shift are projections of the conditioner.

    Args:
        state: (B, 2R, N), the signal x and the sum of the skips, which stays as it is.
        conditioner: (B, M, N).
        projection: (groups, 2, M, 6), see `_grouped`.
        bias: (groups, 2, 6).

    Returns:
        (B, 2R, N).
    """
    x, skips = state.chunk(2, dim=1)
    channels = x.shape[1]
    projected = F.conv1d(conditioner, _rows(projection, channels)[..., None], _rows(bias[..., None, :], channels)[:, 0])
    scale, shift = projected.chunk(2, dim=1)
    return torch.cat((scale * x + shift, skips), dim=1)


for _operator in (residual_layer, modulation):
    _operator.register_fake(lambda state, *_: torch.empty_like(state))


class NativeFilm(nn.Module):
    """A FiLM layer of `LoweredDenoiser`, whose scale includes the 1, as one operator."""

    projection: Tensor
    bias: Tensor

    def __init__(self, film: Any) -> None:
        """Args: film: its two convolutions over images of height 1."""
        super().__init__()
        scale, shift = film
        self.register_buffer("projection", _grouped(scale.weight[..., 0, 0], shift.weight[..., 0, 0]).detach())
        self.register_buffer("bias", _grouped(scale.bias, shift.bias).detach())

    def forward(self, state: Tensor, conditioner: Tensor) -> Tensor:
        """state (B, 2R, N), conditioner (B, M, N) -> state."""
        return modulation(state, conditioner, self.projection, self.bias)  # type: ignore[no-any-return]


class NativeResidualLayer(nn.Module):
    """`LoweredResidualLayer` as one operator, without factors that remain beside its weights."""

    dilated: Tensor
    bias: Tensor
    projection: Tensor
    output: Tensor
    output_bias: Tensor

    def __init__(self, layer: LoweredResidualLayer) -> None:
        super().__init__()
        if layer.shrink != 1:
            raise ValueError("the factors of the layer are not in its weights")
        # pairs of convolutions over images of height 1
        convolutions: Any = layer.dilated_conv
        projections: Any = layer.conditioner_projection
        skip: Any = layer.skip_projection
        residual: Any = layer.residual_projection
        gate, filtered = convolutions
        gate_projection, filtered_projection = projections
        self.dilation = int(gate.dilation[1])
        self.diffusion_projection = layer.diffusion_projection
        taps = WinogradFilter.of(_OUTPUTS, _TAPS).taps  # (6, 3)
        at_points = [torch.einsum("pk,oik->poi", taps, conv.weight[:, :, 0].double()) for conv in (gate, filtered)]
        # the last layer has no residual: its signal has no reader
        residual_weight, residual_bias = (
            (torch.zeros_like(skip.weight), torch.zeros_like(skip.bias))
            if residual is None
            else (residual.weight, residual.bias)
        )
        packed = {
            "dilated": _grouped(*at_points),
            "bias": _grouped(gate.bias + gate_projection.bias, filtered.bias + filtered_projection.bias),
            "projection": _grouped(gate_projection.weight[..., 0, 0], filtered_projection.weight[..., 0, 0]),
            "output": _grouped(residual_weight[..., 0, 0], skip.weight[..., 0, 0]),
            "output_bias": _grouped(residual_bias, skip.bias),
        }
        for name, weights in packed.items():
            self.register_buffer(name, weights.detach().to(skip.weight.dtype))

    def forward(self, state: Tensor, conditioner: Tensor, step: Tensor) -> Tensor:
        """state (B, 2R, N), conditioner (B, M, N), step (B, E) -> state."""
        projected = self.diffusion_projection(step)
        weights = [self.dilated, self.bias, self.projection, self.output, self.output_bias]
        return residual_layer(state, projected, conditioner, weights, self.dilation)  # type: ignore[no-any-return]


class NativeDenoiser(nn.Module):
    """`LoweredDenoiser` with one operator for each residual layer. Modules keep their names in a checkpoint."""

    def __init__(self, denoiser: LoweredDenoiser) -> None:
        super().__init__()
        layers: Any = denoiser.residual_layers
        self.num_diffusion_steps = denoiser.num_diffusion_steps
        self.cycle = denoiser.cycle
        self.diffusion_embedding = denoiser.diffusion_embedding
        self.spectrogram_upsampler = denoiser.spectrogram_upsampler
        self.input_projection = denoiser.input_projection
        self.residual_layers = nn.ModuleList([NativeResidualLayer(layer) for layer in layers])
        films: Any = denoiser.film_layers
        self.film_layers = nn.ModuleList([NativeFilm(film) for film in films])
        self.skip_projection = denoiser.skip_projection
        self.output_projection = denoiser.output_projection

    def forward(self, signal: Tensor, timestep: Tensor, mel: Tensor) -> Tensor:
        """signal (B, 1, N), timestep (B,), mel (B, M, T) -> noise (B, 1, N)."""
        step = self.diffusion_embedding(timestep)
        conditioner = self.spectrogram_upsampler(mel)
        x = F.relu(self.input_projection(signal.unsqueeze(2))).squeeze(2)  # (B, R, N)
        state = torch.cat((x, torch.zeros_like(x)), dim=1)
        for i, layer in enumerate(self.residual_layers):
            film, position = divmod(i, self.cycle)
            if position == 0:
                state = self.film_layers[film](state, conditioner)
            state = layer(state, conditioner, step)
        skips = state.chunk(2, dim=1)[1]
        x = F.relu(self.skip_projection(skips.unsqueeze(2)))
        return self.output_projection(x.squeeze(2))  # type: ignore[no-any-return]
