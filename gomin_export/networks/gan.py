"""FiLM-GAN: a BigVGAN-style generator (Lee et al. 2022) with feature-wise linear modulation (Perez et al. 2017).

Axes: B batch, C channels, T time at the module's own rate, M mel bands. A mel of T frames becomes hop_length·T samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.signal import firwin
from torch import Tensor, nn
from torch.nn import functional as F

from gomin_export.checkpoints import CheckpointReader
from gomin_export.networks.base import MelInverter, require_counts

LPF_TAPS = 12
PAIRED = ("convs1", "convs2")  # the two convolutions of a resblock, for each dilation
PEAK_TENSORS = 16  # tensors of the widest stage that one call holds at the same time, at most
FILM_SCALE = 0.01  # the network learns scales in units of 1/100


@dataclass(frozen=True)
class GANConfig:
    """Constructor arguments of `GomiGAN`; the defaults are those of the released checkpoint.

    Raises:
        ValueError: the values do not make a network whose output has hop_length samples per frame.
    """

    in_channels: int = 128
    upsample_in_channels: int = 1536
    upsample_strides: Sequence[int] = (4, 4, 2, 2, 2, 2)
    resblock_kernel_sizes: Sequence[int] = (3, 7, 11)
    resblock_dilations: Sequence[Sequence[int]] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    sample_rate: int = 24000
    win_length: int = 1024
    hop_length: int = 256

    def __post_init__(self) -> None:
        require_counts(self.__dict__)
        if math.prod(self.upsample_strides) != self.hop_length:
            raise ValueError(
                f"upsample_strides {list(self.upsample_strides)} multiply to {math.prod(self.upsample_strides)}, "
                f"but hop_length is {self.hop_length}: they must be equal"
            )
        if any(stride < 2 or stride % 2 for stride in self.upsample_strides):
            raise ValueError(f"upsample_strides {list(self.upsample_strides)} must be even")
        if any(kernel < 1 or kernel % 2 == 0 for kernel in self.resblock_kernel_sizes):
            raise ValueError(f"resblock_kernel_sizes {list(self.resblock_kernel_sizes)} must be odd")
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilations):
            raise ValueError(
                f"resblock_kernel_sizes has {len(self.resblock_kernel_sizes)} entries and resblock_dilations "
                f"{len(self.resblock_dilations)}: one list of dilations for each kernel size is needed"
            )
        if self.upsample_in_channels % 2 ** len(self.upsample_strides):
            raise ValueError(
                f"upsample_in_channels {self.upsample_in_channels} cannot be halved {len(self.upsample_strides)} times"
            )

    @property
    def bytes_per_frame(self) -> int:
        """Peak memory of one call, in bytes per mel frame.

        Measured with ONNX Runtime's CPU kernels: 11.8 to 12.8 tensors of the widest stage, with --target cpu 14.8.
        Activations at twice the rate and the modulations of all stages are among them.
        """
        values = 0
        samples = 1
        for i, stride in enumerate(self.upsample_strides):
            samples *= stride
            values = max(values, samples * self.upsample_in_channels // 2 ** (i + 1))  # of one tensor
        return 4 * PEAK_TENSORS * values

    @property
    def halo_frames(self) -> int:
        """Receptive field: the samples of frame f depend on the mel frames f - halo … f + halo and no others.

        The samples of one frame are traced from the output back to the mel, as an interval of indices at each rate,
        through the widest resblock of each stage. The FiLM path has the same strides and no resblocks, and a smaller
        receptive field.
        """
        first, last = 0, self.hop_length - 1
        first, last = first - 3, last + 3  # conv_post, kernel 7
        for stride in reversed(self.upsample_strides):
            radius = 0
            for kernel, dilations in zip(self.resblock_kernel_sizes, self.resblock_dilations, strict=True):
                # two filters of 12 taps at twice the rate, of whose samples every second is kept: 5 to each side
                branch = sum((dilation + 1) * (kernel - 1) // 2 + LPF_TAPS // 2 - 1 for dilation in dilations)
                radius = max(radius, branch)
            # ConvTranspose1d: output o takes inputs i with 0 ≤ o + stride/2 - i·stride < 2·stride
            first = -((2 * stride - 1 - (first - radius + stride // 2)) // stride)
            last = (last + radius + stride // 2) // stride
        return max(-(first - 3), last + 3)  # conv_pre, kernel 7

    @classmethod
    def from_tensors(cls, tensors: CheckpointReader, overrides: Mapping[str, Any]) -> GANConfig:
        """Read the config from a checkpoint's tensor shapes.

        Dilations do not change the shapes: resblocks of n ≤ 3 convolutions are assumed to have the first n of 1, 3, 5,
        as all GOMIN models do; more need an override.

        Raises:
            CheckpointError: a tensor that the config is read from is missing or misshapen.
        """
        stages = tensors.count("ups.{}.")
        blocks = tensors.count("resblocks.{}.")
        if blocks == 0 or blocks % stages:
            raise tensors.error(
                f"has {blocks} resblocks in {stages} upsampling stages; each stage should have the same number"
            )
        depths = [
            max(tensors.count(f"resblocks.{i}.{convs}.{{}}.") for convs in PAIRED) for i in range(blocks // stages)
        ]
        kernels = tuple(
            tensors.agreed(*((f"resblocks.{i}.{convs}.{n}.weight", 2, 3) for convs in PAIRED for n in range(depth)))
            for i, depth in enumerate(depths)
        )
        if "resblock_dilations" not in overrides and max(depths) > 3:
            raise tensors.error(
                f"has resblocks of {max(depths)} convolutions, whose dilations cannot be read from the tensors: "
                "give resblock_dilations in a config file"
            )
        strides = []
        for i in range(stages):
            names = (f"ups.{i}.weight", f"film_generator.convs.{i}.weight")
            kernel, film_kernel = (tensors.size(name, 2, rank=3) for name in names)
            if kernel != film_kernel:
                raise tensors.error(
                    f"tensors {names[0]} and {names[1]} have kernels of {kernel} and {film_kernel}; "
                    "expected twice the stage's stride in both"
                )
            strides.append(kernel // 2)
        read: dict[str, Any] = {
            "in_channels": tensors.agreed(("conv_pre.weight", 1, 3), ("film_generator.convs.0.weight", 0, 3)),
            "upsample_in_channels": tensors.agreed(
                ("conv_pre.bias", 0, 1), ("snake_ups.0.alpha", 0, 2), ("ups.0.weight", 0, 3), ("conv_pre.weight", 0, 3)
            ),
            "upsample_strides": tuple(strides),
            "resblock_kernel_sizes": kernels,
            "resblock_dilations": tuple((1, 3, 5)[:depth] for depth in depths),
            "hop_length": math.prod(strides),
            **tensors.mel_settings(),
        }
        return cls(**{**read, **overrides})


class Snake(nn.Module):
    """Snake activation x + sin²(αx)/α (Ziyin et al. 2020), with one α for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T). For α = 0 the result is the limit, x."""
        # if α is 0, or so small that 1/α overflows, sin²(αx)/α is far below the last bit of x
        vanishing = self.alpha.abs() < 1e-30
        inverse = torch.where(vanishing, 0.0, 1.0 / torch.where(vanishing, 1.0, self.alpha))
        return x + inverse * torch.sin(self.alpha * x) ** 2


class ResBlock(nn.Module):
    """Residual block whose first activations are anti-aliased: at twice the rate, between two low-pass filters.

    Lee et al. 2022, section 3.2; the filter is shared by all dilations of the block and stored in the checkpoint.
    """

    lpf: Tensor

    def __init__(self, channels: int, kernel_size: int, dilations: Sequence[int], filter_rate: float) -> None:
        """Args: filter_rate: twice this stage's sample rate, in Hz, at which the low-pass filter works."""
        super().__init__()
        self.snakes1 = nn.ModuleList([Snake(channels) for _ in dilations])
        self.snakes2 = nn.ModuleList([Snake(channels) for _ in dilations])
        self.convs1 = nn.ModuleList(
            [
                nn.Conv1d(channels, channels, kernel_size, dilation=d, padding=d * (kernel_size - 1) // 2)
                for d in dilations
            ]
        )
        self.convs2 = nn.ModuleList(
            [nn.Conv1d(channels, channels, kernel_size, padding=(kernel_size - 1) // 2) for _ in dilations]
        )
        taps = math.sqrt(2) * firwin(LPF_TAPS, cutoff=filter_rate / 4, width=0.6, fs=filter_rate)
        self.register_buffer("lpf", torch.tensor(taps, dtype=torch.float32).expand(channels, 1, -1).clone())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)."""
        for snake1, conv1, snake2, conv2 in zip(self.snakes1, self.convs1, self.snakes2, self.convs2, strict=True):
            x = x + conv2(snake2(conv1(self.anti_aliased(snake1, x))))
        return x

    def anti_aliased(self, snake: nn.Module, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T): zero-stuff by two, filter, activate, filter, keep one sample in two."""
        samples = x.shape[-1]
        channels = x.shape[-2]
        x = torch.stack((x, torch.zeros_like(x)), dim=-1).flatten(-2)  # (B, C, 2T)
        x = F.conv1d(x, self.lpf, padding=LPF_TAPS // 2, groups=channels)  # (B, C, 2T + 1)
        x = F.conv1d(snake(x), self.lpf, padding=LPF_TAPS // 2, groups=channels)  # (B, C, 2T + 2)
        return x[..., 1 : 2 * samples : 2]


class FiLMGenerator(nn.Module):
    """Upsamples the mel step by step; the output of each step is the scale and shift of one generator stage."""

    def __init__(self, in_channels: int, out_channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for channels, stride in zip(out_channels, strides, strict=True):
            self.convs.append(nn.ConvTranspose1d(in_channels, channels, 2 * stride, stride, padding=stride // 2))
            in_channels = channels

    def forward(self, mel: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(B, M, T) -> (scale, shift) for each stage, with the shape of the stage's output."""
        modulations = []
        x = mel
        for conv in self.convs:
            x = conv(x)
            scale, shift = x.chunk(2, dim=1)
            modulations.append((scale, shift))
        return modulations


class GomiGAN(MelInverter):
    """The generator: mel spectrogram (B, in_channels, T) -> waveform (B, 1, hop_length·T) in [-1, 1]."""

    kind = "gan"
    config_class = GANConfig
    config: GANConfig

    def __init__(
        self,
        in_channels: int = GANConfig.in_channels,
        upsample_in_channels: int = GANConfig.upsample_in_channels,
        upsample_strides: Sequence[int] = GANConfig.upsample_strides,
        resblock_kernel_sizes: Sequence[int] = GANConfig.resblock_kernel_sizes,
        resblock_dilations: Sequence[Sequence[int]] = GANConfig.resblock_dilations,
        sample_rate: int = GANConfig.sample_rate,
        win_length: int = GANConfig.win_length,
        hop_length: int = GANConfig.hop_length,
    ) -> None:
        super().__init__(in_channels, sample_rate, win_length, hop_length)
        self.config = GANConfig(
            in_channels,
            upsample_in_channels,
            tuple(upsample_strides),
            tuple(resblock_kernel_sizes),
            tuple(tuple(dilations) for dilations in resblock_dilations),
            sample_rate,
            win_length,
            hop_length,
        )
        stages = len(upsample_strides)
        channels = [upsample_in_channels // 2**i for i in range(stages + 1)]
        self.film_generator = FiLMGenerator(in_channels, channels[:-1], upsample_strides)
        self.conv_pre = nn.Conv1d(in_channels, channels[0], 7, padding=3)
        self.snake_ups = nn.ModuleList([Snake(c) for c in channels[:-1]])
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        filter_rate = 2 * sample_rate / math.prod(upsample_strides)
        for i, stride in enumerate(upsample_strides):
            filter_rate *= stride
            self.ups.append(nn.ConvTranspose1d(channels[i], channels[i + 1], 2 * stride, stride, padding=stride // 2))
            for kernel_size, dilations in zip(resblock_kernel_sizes, resblock_dilations, strict=True):
                self.resblocks.append(ResBlock(channels[i + 1], kernel_size, dilations, filter_rate))
        self.snake_post = Snake(channels[-1])
        self.conv_post = nn.Conv1d(channels[-1], 1, 7, padding=3)

    def forward(self, mel: Tensor) -> Tensor:
        """(B, in_channels, T) -> (B, 1, hop_length·T)."""
        blocks_per_stage = len(self.resblocks) // len(self.ups)
        modulations = self.film_generator(mel)
        x = self.conv_pre(mel)
        for i, (snake, up, (scale, shift)) in enumerate(zip(self.snake_ups, self.ups, modulations, strict=True)):
            x = up(snake(x))
            x = (1 + FILM_SCALE * scale) * x + shift
            first = i * blocks_per_stage
            blocks = self.resblocks[first : first + blocks_per_stage]
            x = sum(block(x) for block in blocks) / blocks_per_stage
        return torch.tanh(self.conv_post(self.snake_post(x)))
