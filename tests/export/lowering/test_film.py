"""Modulations in one convolution equal the chain of layers."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from gomin_export.lowering import LoweredGAN
from gomin_export.lowering.film import ComposedModulation, FrameEdges, composition_pays
from tests.export.lowering.helpers import close, wide_gan


class TestModulation:
    @staticmethod
    def chain(strides: tuple[int, ...]) -> list[nn.ConvTranspose1d]:
        torch.manual_seed(0)
        sizes = (8, 12, 10, 6)
        return [
            nn.ConvTranspose1d(before, after, 2 * stride, stride, padding=stride // 2).double()
            for before, after, stride in zip(sizes, sizes[1:], strides, strict=False)
        ]

    @pytest.mark.parametrize("frames", [1, 2, 9])  # a frame that is first and last; no inner frame; inner frames
    @pytest.mark.parametrize("strides", [(2, 2), (6, 2), (4, 4, 2), (8, 8, 4)])
    def test_is_the_chain(self, strides: tuple[int, ...], frames: int) -> None:
        chain = self.chain(strides)
        mel = torch.randn(2, 8, frames, dtype=torch.float64)
        expected = mel
        for conv in chain:
            expected = conv(expected)

        actual = ComposedModulation(chain).double()(mel, *FrameEdges(torch.float64)(mel))

        close(actual, expected)

    def test_of_weights_that_are_all_zero(self) -> None:
        chain = self.chain((4, 2))
        for conv in chain:
            conv.weight.data.zero_()
        mel = torch.randn(1, 8, 3, dtype=torch.float64)

        actual = ComposedModulation(chain).double()(mel, *FrameEdges(torch.float64)(mel))

        close(actual, chain[1](chain[0](mel)))

    def test_of_the_released_network_the_second_and_third(self) -> None:
        sizes = (128, 1536, 768, 384, 192, 96)
        convs = [nn.ConvTranspose1d(before, after, 2) for before, after in pairwise(sizes)]

        assert [composition_pays(conv, 128) for conv in convs] == [False, True, True, False, False]

    def test_in_a_network(self) -> None:
        lowered = LoweredGAN(wide_gan(), winograd=True)

        composed = [isinstance(conv, ComposedModulation) for conv in lowered.film_generator.convs]
        assert composed == [False, True]
