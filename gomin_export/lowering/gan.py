"""FiLM-GAN in its exported form: polyphase activations, Winograd convolutions, factors folded into weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from gomin_export.lowering.activations import (
    FoldedSnake,
    HalfFoldedSnake,
    PolyphaseSnake,
    UnfoldedSnake,
    frequencies,
)
from gomin_export.lowering.film import ComposedModulation, FrameEdges, composition_pays
from gomin_export.lowering.folding import scale_inputs, scale_outputs
from gomin_export.lowering.native import NativeUpsampling
from gomin_export.lowering.polyphase import (
    ONNX_OPERATORS,
    PhaseCosts,
    PhasedResBlock,
    from_phases,
    phases_pay,
    to_phases,
)
from gomin_export.networks.gan import FILM_SCALE, GomiGAN, ResBlock


class LoweredResBlock(nn.Module):
    """`ResBlock` with polyphase activations; the factors of the other Snakes are folded into the convolutions."""

    def __init__(self, block: ResBlock, fold: bool) -> None:
        super().__init__()
        snakes1: Any = block.snakes1  # Any: ModuleList has no element type
        snakes2: Any = block.snakes2
        convs1: Any = copy.deepcopy(block.convs1)
        convs2: Any = copy.deepcopy(block.convs2)
        self.snakes1 = nn.ModuleList([PolyphaseSnake(block.lpf, snake, fold) for snake in snakes1])
        self.convs1 = convs1
        self.snakes2 = nn.ModuleList([FoldedSnake() if fold else UnfoldedSnake(snake) for snake in snakes2])
        self.convs2 = convs2
        if fold:
            for conv1, snake, conv2 in zip(convs1, snakes2, convs2, strict=True):
                scale_outputs(conv1, frequencies(snake))
                scale_inputs(conv2, 1 / frequencies(snake))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)."""
        for snake1, conv1, snake2, conv2 in zip(self.snakes1, self.convs1, self.snakes2, self.convs2, strict=True):
            x = x + conv2(snake2(conv1(snake1(x))))
        return x


class FiLM(nn.Module):
    """Feature-wise linear modulation (Perez et al. 2017) by a scale around 0."""

    def __init__(self, factor: float) -> None:
        """Args: factor: factor of the scale; 1 if it is folded into the layer that makes the scale."""
        super().__init__()
        self.factor = factor

    def forward(self, modulation: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2·C, T) -> factor and summand for a stage's input, (B, C, T) each."""
        scale, shift = modulation.chunk(2, dim=1)
        if self.factor != 1:
            scale = self.factor * scale
        return 1 + scale, shift


class LoweredGAN(nn.Module):
    """`GomiGAN` rewritten. Modules keep their names in a checkpoint.

    If `fold` is set, three factors are folded into weights: those of every Snake between linear layers; FiLM's 0.01,
    into the layer that makes the scale (the next layer of the FiLM generator takes 100); and the mean over a stage's
    resblocks, into the Snake after it. Such weights exceed the range of float16.

    The modulations of a stage come in the graph before the stage's input: ONNX Runtime then computes them when they are
    needed (see `LoweredDenoiser`), which takes less memory.
    """

    def __init__(
        self, network: GomiGAN, fold: bool = True, winograd: bool = False, costs: PhaseCosts = ONNX_OPERATORS
    ) -> None:
        """Args: fold: fold factors into weights; winograd: use `PhasedResBlock` if it pays; it always folds.

        costs: what the filters of such a block cost.
        """
        super().__init__()
        if winograd and not fold:
            raise ValueError("Winograd convolutions fold factors into weights")
        self.blocks_per_stage = len(network.resblocks) // len(network.ups)
        # factor that remains after the resblocks of a stage are added
        self.mean = 1.0 if fold else 1 / self.blocks_per_stage
        self.films = nn.ModuleList([FiLM(1.0 if fold else FILM_SCALE) for _ in network.ups])
        self.film_generator = copy.deepcopy(network.film_generator)
        self.conv_pre = copy.deepcopy(network.conv_pre)
        self.ups = copy.deepcopy(network.ups)
        self.conv_post = copy.deepcopy(network.conv_post)
        blocks: Any = network.resblocks
        self.resblocks = nn.ModuleList()
        for i, block in enumerate(blocks):
            samples_per_frame = math.prod(network.config.upsample_strides[: i // self.blocks_per_stage + 1])
            phased = winograd and phases_pay(block, samples_per_frame, costs)
            self.resblocks.append(PhasedResBlock(block) if phased else LoweredResBlock(block, fold))
        snakes = [*network.snake_ups, network.snake_post]
        if not fold:
            lowered: list[nn.Module] = [UnfoldedSnake(snake) for snake in snakes]
        else:
            for conv, following in pairwise([*self.film_generator.convs, None]):
                half = torch.ones(conv.out_channels, dtype=torch.float64)
                half[: conv.out_channels // 2] = FILM_SCALE
                scale_outputs(conv, half)
                if following is not None:
                    scale_inputs(following, 1 / half)
            scale_outputs(self.conv_pre, frequencies(snakes[0]))
            lowered = [FoldedSnake()]
            for snake in snakes[1:]:
                lowered.append(HalfFoldedSnake(frequencies(snake) / self.blocks_per_stage, snake.alpha.dtype))
            for snake, layer in zip(snakes, [*self.ups, self.conv_post], strict=True):
                scale_inputs(layer, 1 / frequencies(snake))
        chain = [*self.film_generator.convs]
        composed = [i for i, conv in enumerate(chain) if winograd and i and composition_pays(conv, network.n_mels)]
        self.edges = FrameEdges(chain[0].weight.dtype) if composed else None
        for i in composed:
            self.film_generator.convs[i] = ComposedModulation(chain[: i + 1])
        *snake_ups, self.snake_post = lowered
        self.snake_ups = nn.ModuleList(snake_ups)

    def forward(self, mel: Tensor) -> Tensor:
        """(B, M, T) -> (B, 1, hop_length·T)."""
        modulations = mel
        edges = () if self.edges is None else self.edges(mel)
        x = self.conv_pre(mel)
        stages = zip(self.snake_ups, self.ups, self.films, self.film_generator.convs, strict=True)
        for i, (snake, up, film, conv) in enumerate(stages):
            modulations = conv(mel, *edges) if isinstance(conv, ComposedModulation) else conv(modulations)
            if isinstance(up, NativeUpsampling):  # includes FiLM
                x = up(snake(x), modulations)
            else:
                factor, summand = film(modulations)
                x = factor * up(snake(x)) + summand
            first = i * self.blocks_per_stage
            x = _in_parallel(self.resblocks[first : first + self.blocks_per_stage], x)
            if self.mean != 1:
                x = self.mean * x
        return torch.tanh(self.conv_post(self.snake_post(x)))


def _in_parallel(blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
    """The sum of the blocks' outputs for one input, (B, C, T) -> (B, C, T)."""
    blocks = list(blocks)
    phased = [block for block in blocks if not isinstance(block, LoweredResBlock)]
    outputs = [block(x) for block in blocks if isinstance(block, LoweredResBlock)]
    if phased:
        phases = to_phases(x)
        outputs.append(from_phases(_total([block(phases) for block in phased])))
    return _total(outputs)


def _total(parts: Sequence[Tensor]) -> Tensor:
    return sum(parts[1:], start=parts[0])
