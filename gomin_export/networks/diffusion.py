"""FiLM-DiffWave: a DiffWave denoiser (Kong et al. 2020) with feature-wise linear modulation (Perez et al. 2017).

Axes: B batch, M mel bands, T mel frames, N = hop_length·T waveform samples, R residual channels, E = 512 embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gomin_client.sampling.base import Array, NoiseSource, Sampler, sample_steps
from gomin_client.sampling.ddpm import DDPM
from gomin_client.sampling.noise import NoiseField
from gomin_client.sampling.schedules import NoiseSchedule
from gomin_export.checkpoints import CheckpointReader
from gomin_export.networks.base import MelInverter, require_counts

FILM_SCALE = 0.01  # the network learns scales in units of 1/100
EMBEDDING_HALF = 64  # sines, and as many cosines
EMBEDDING_WIDTH = 512
UPSAMPLE_STRIDE = 16  # of each of the two upsampling convolutions
HOP_LENGTH = UPSAMPLE_STRIDE**2
LEAK = 0.4  # slope below 0 of the upsampler's activations


@dataclass(frozen=True)
class DiffusionConfig:
    """Constructor arguments of `DiffusionWrapper`; the defaults are those of the released checkpoint.

    Raises:
        ValueError: a value out of range.
    """

    in_channels: int = 128
    residual_layers: int = 30
    residual_channels: int = 128
    dilation_cycle_length: int = 10
    num_diffusion_steps: int = 50
    sample_rate: int = 24000
    win_length: int = 1024
    hop_length: int = 256

    def __post_init__(self) -> None:
        require_counts(self.__dict__)
        if self.hop_length != HOP_LENGTH:
            raise ValueError(f"hop_length is {self.hop_length}, but the network upsamples {HOP_LENGTH} times")

    @property
    def bytes_per_frame(self) -> int:
        """Peak memory of one denoiser call, in bytes per mel frame.

        Measured with ONNX Runtime's CPU kernels: 8 values of the residual channels and 2 of the mel bands for each
        sample, less 23 % at the released size. The plain form, without lowering, takes up to three times as much.
        """
        return 4 * self.hop_length * (8 * self.residual_channels + 2 * self.in_channels)

    @property
    def halo_frames(self) -> int:
        """Receptive field of one denoiser step: the noise of frame f depends on frames f - halo … f + halo only.

        A window of the whole chain needs this times the number of steps.
        """
        dilations: list[int] = [2 ** (i % self.dilation_cycle_length) for i in range(self.residual_layers)]
        radius = sum(dilations)  # kernel 3
        first, last = -radius, self.hop_length - 1 + radius
        for _ in range(2):  # the upsampler: output o takes inputs i with 0 ≤ o + 8 - 16·i < 32
            first = -((2 * UPSAMPLE_STRIDE - 1 - (first + UPSAMPLE_STRIDE // 2)) // UPSAMPLE_STRIDE)
            last = (last + UPSAMPLE_STRIDE // 2) // UPSAMPLE_STRIDE
        return max(-first, last)

    @classmethod
    def from_tensors(cls, tensors: CheckpointReader, overrides: Mapping[str, Any]) -> DiffusionConfig:
        """Read the config from a checkpoint's tensor shapes.

        The number of diffusion steps does not change the shapes: 50 unless overridden. The dilation cycle is the
        shortest for which the residual layers have as many FiLM layers as the checkpoint.

        Raises:
            CheckpointError: a tensor that the config is read from is missing or misshapen.
        """
        layers = tensors.count("model.residual_layers.{}.")
        films = tensors.count("model.film_layers.{}.")
        cycle = math.ceil(layers / films)
        if "dilation_cycle_length" not in overrides and math.ceil(layers / cycle) != films:
            raise tensors.error(f"has {films} FiLM layers for {layers} residual layers: no dilation cycle gives that")
        read: dict[str, Any] = {
            "in_channels": tensors.agreed(
                ("model.film_layers.0.weight", 1, 3), ("model.residual_layers.0.conditioner_projection.weight", 1, 3)
            ),
            "residual_layers": layers,
            "residual_channels": tensors.agreed(
                ("model.input_projection.bias", 0, 1),
                ("model.skip_projection.bias", 0, 1),
                ("model.input_projection.weight", 0, 3),
            ),
            "dilation_cycle_length": cycle,
            **tensors.mel_settings(),
        }
        return cls(**{**read, **overrides})


class DiffusionEmbedding(nn.Module):
    """Sinusoidal embedding of the timestep and two linear layers. Kong et al. 2020, section 3.1."""

    table: Tensor

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        self.projection1 = nn.Linear(2 * EMBEDDING_HALF, EMBEDDING_WIDTH)
        self.projection2 = nn.Linear(EMBEDDING_WIDTH, EMBEDDING_WIDTH)
        # float32 throughout: the arguments reach 49·10⁴, and a float64 table differs by 2e-4 from the one in training
        exponents = torch.arange(EMBEDDING_HALF, dtype=torch.float32) * 4.0 / (EMBEDDING_HALF - 1)
        arguments = torch.arange(num_steps, dtype=torch.float32)[:, None] * 10.0 ** exponents[None, :]
        self.register_buffer("table", torch.cat([arguments.sin(), arguments.cos()], dim=1), persistent=False)

    def forward(self, timestep: Tensor) -> Tensor:
        """(B,) integer or float -> (B, E); a float interpolates linearly between its neighbours' rows."""
        if timestep.is_floating_point():
            low = timestep.floor().long()
            high = timestep.ceil().long()
            fraction = (timestep - timestep.floor())[:, None]
            x = self.table[low] + fraction * (self.table[high] - self.table[low])
        else:
            x = self.table[timestep]
        return F.silu(self.projection2(F.silu(self.projection1(x))))


class SpectrogramUpsampler(nn.Module):
    """The mel as a one-channel image, upsampled 256 times in time by two transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        stride, kernel, padding = (1, UPSAMPLE_STRIDE), (3, 2 * UPSAMPLE_STRIDE), (1, UPSAMPLE_STRIDE // 2)
        self.conv1 = nn.ConvTranspose2d(1, 1, kernel, stride, padding)
        self.conv2 = nn.ConvTranspose2d(1, 1, kernel, stride, padding)

    def forward(self, mel: Tensor) -> Tensor:
        """(B, M, T) -> (B, M, N)."""
        x = F.leaky_relu(self.conv1(mel.unsqueeze(1)), LEAK)  # (B, 1, M, 16·T)
        return F.leaky_relu(self.conv2(x), LEAK).squeeze(1)


class ResidualLayer(nn.Module):
    """One gated, dilated layer. Kong et al. 2020, figure 2."""

    def __init__(self, in_channels: int, residual_channels: int, dilation: int) -> None:
        super().__init__()
        self.dilated_conv = nn.Conv1d(residual_channels, 2 * residual_channels, 3, padding=dilation, dilation=dilation)
        self.diffusion_projection = nn.Linear(EMBEDDING_WIDTH, residual_channels)
        self.conditioner_projection = nn.Conv1d(in_channels, 2 * residual_channels, 1)
        self.output_projection = nn.Conv1d(residual_channels, 2 * residual_channels, 1)

    def forward(self, x: Tensor, conditioner: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, R, N), conditioner (B, M, N), step (B, E) -> x (B, R, N), skip (B, R, N)."""
        y = x + self.diffusion_projection(step)[:, :, None]
        y = self.dilated_conv(y) + self.conditioner_projection(conditioner)
        gate, filtered = y.chunk(2, dim=1)
        y = self.output_projection(torch.sigmoid(gate) * torch.tanh(filtered))
        residual, skip = y.chunk(2, dim=1)
        return (x + residual) / math.sqrt(2.0), skip


class GomiDiff(nn.Module):
    """The denoiser: noisy signal, timestep and mel -> the noise in the signal."""

    def __init__(
        self,
        in_channels: int = DiffusionConfig.in_channels,
        residual_layers: int = DiffusionConfig.residual_layers,
        residual_channels: int = DiffusionConfig.residual_channels,
        dilation_cycle_length: int = DiffusionConfig.dilation_cycle_length,
        num_diffusion_steps: int = DiffusionConfig.num_diffusion_steps,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_diffusion_steps = num_diffusion_steps
        self.dilation_cycle_length = dilation_cycle_length
        self.film_layers = nn.ModuleList(
            [
                nn.Conv1d(in_channels, 2 * residual_channels, 1)
                for _ in range(math.ceil(residual_layers / dilation_cycle_length))
            ]
        )
        self.input_projection = nn.Conv1d(1, residual_channels, 1)
        self.diffusion_embedding = DiffusionEmbedding(num_diffusion_steps)
        self.spectrogram_upsampler = SpectrogramUpsampler()
        self.residual_layers = nn.ModuleList(
            [
                ResidualLayer(in_channels, residual_channels, 2 ** (i % dilation_cycle_length))
                for i in range(residual_layers)
            ]
        )
        self.skip_projection = nn.Conv1d(residual_channels, residual_channels, 1)
        self.output_projection = nn.Conv1d(residual_channels, 1, 1)

    def forward(self, signal: Tensor, timestep: Tensor, mel: Tensor) -> Tensor:
        """Predict the noise.

        Args:
            signal: (B, 1, N).
            timestep: (B,) or (1,), integer or float, within 0 … num_diffusion_steps - 1.
            mel: (B, M, T) with N = 256·T.

        Returns:
            (B, 1, N).

        Raises:
            ValueError: a timestep out of range (not checked while the network is traced for export).
        """
        last = self.num_diffusion_steps - 1
        if not torch.compiler.is_compiling() and bool(((timestep < 0) | (timestep > last)).any()):
            raise ValueError(f"timestep {timestep.tolist()} out of range; expected 0 … {last}")
        step = self.diffusion_embedding(timestep)
        conditioner = self.spectrogram_upsampler(mel)
        x = F.relu(self.input_projection(signal))
        skips: Tensor | None = None
        for i, layer in enumerate(self.residual_layers):
            cycle, position = divmod(i, self.dilation_cycle_length)
            if position == 0:
                scale, shift = self.film_layers[cycle](conditioner).chunk(2, dim=1)
                x = (1 + FILM_SCALE * scale) * x + shift
            x, skip = layer(x, conditioner, step)
            skips = skip if skips is None else skips + skip
        assert skips is not None  # there is at least one layer
        x = F.relu(self.skip_projection(skips / math.sqrt(len(self.residual_layers))))
        return self.output_projection(x)  # type: ignore[no-any-return]


class DiffusionWrapper(MelInverter):
    """The sampling program: mel spectrogram (B, in_channels, T) -> waveform (B, 1, 256·T) in [-1, 1]."""

    kind = "diffusion"
    config_class = DiffusionConfig
    config: DiffusionConfig

    def __init__(
        self,
        in_channels: int = DiffusionConfig.in_channels,
        residual_layers: int = DiffusionConfig.residual_layers,
        residual_channels: int = DiffusionConfig.residual_channels,
        dilation_cycle_length: int = DiffusionConfig.dilation_cycle_length,
        num_diffusion_steps: int = DiffusionConfig.num_diffusion_steps,
        sample_rate: int = DiffusionConfig.sample_rate,
        win_length: int = DiffusionConfig.win_length,
        hop_length: int = DiffusionConfig.hop_length,
    ) -> None:
        super().__init__(in_channels, sample_rate, win_length, hop_length)
        self.config = DiffusionConfig(
            in_channels,
            residual_layers,
            residual_channels,
            dilation_cycle_length,
            num_diffusion_steps,
            sample_rate,
            win_length,
            hop_length,
        )
        self.model = GomiDiff(
            in_channels, residual_layers, residual_channels, dilation_cycle_length, num_diffusion_steps
        )

    @property
    def num_diffusion_steps(self) -> int:
        """Timesteps that the denoiser was trained with."""
        return self.model.num_diffusion_steps

    @torch.no_grad()
    def forward(
        self,
        mel: Tensor,
        return_whole_sequence: bool = False,
        *,
        noise: NoiseSource | None = None,
        seed: int | Sequence[int] | None = None,
        sampler: Sampler | None = None,
    ) -> Tensor | list[Tensor]:
        """Run the released chain, DDPM over all steps of the linear schedule, or another.

        Args:
            mel: (B, in_channels, T).
            return_whole_sequence: return the starting noise and the signal after every step too.
            noise: source of the draws; by default the noise fields of `seed`.
            seed: one for all items, or one for each; by default every item gets a fresh one.
            sampler: sampler of the chain; by default the released program's.

        Returns:
            (B, 1, 256·T); or a list of steps + 1 such tensors, the newest first.
        """
        if noise is None:
            items = mel.shape[0]
            if seed is None:
                seed = [int(fresh) for fresh in np.random.default_rng().integers(2**63, size=items)]
            seeds = [seed] * items if isinstance(seed, int) else seed
            noise = NoiseField(seeds, self.hop_length * mel.shape[-1])

        dtype = self.model.input_projection.weight.dtype

        def denoise(signal: Array, timestep: Array, mel_array: Array) -> Array:
            arrays = (torch.from_numpy(array).to(mel.device, dtype) for array in (signal, timestep, mel_array))
            return self.model(*arrays).float().cpu().numpy()  # type: ignore[no-any-return]

        sampler = sampler or DDPM(NoiseSchedule.linear(self.model.num_diffusion_steps))
        steps = sample_steps(denoise, mel.detach().cpu().numpy(), noise, sampler)
        if return_whole_sequence:
            return [torch.from_numpy(signal).to(mel.device) for signal in steps][::-1]
        for last in steps:
            signal = last
        return torch.from_numpy(signal).to(mel.device)
