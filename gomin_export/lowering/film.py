"""FiLM's modulations computed directly from the mel, if that takes fewer multiplications than layer by layer.

The FiLM generator is a chain of transposed convolutions without activations: the output of each layer is linear in the
mel. The samples of a frame depend on that frame and its two neighbours. One convolution of three taps, with one output
for each sample of a frame, therefore replaces all layers up to that point. At the released size this takes an eighth of
the multiplications for the second layer and a quarter for the third; later layers gain nothing.

Only the first and the last frame differ, since each layer trims its output at the ends. The difference is linear in
that one frame, and is added to the few samples that it changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_TAPS = 3  # the frame before, the frame, the one after
_WORTH = 3  # factor of multiplications that pays for the transposition


def composition_pays(conv: nn.ConvTranspose1d, n_mels: int) -> bool:
    """Whether a layer, which has two taps per sample, takes fewer multiplications from the mel than layer by layer."""
    return 2 * conv.in_channels >= _WORTH * _TAPS * n_mels


class FrameEdges(nn.Module):
    """The first frame of the mel, and the last, each with a row that is one at that frame; zero elsewhere."""

    first: Tensor
    last: Tensor

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("first", torch.tensor([[[-1.0, 1.0]]], dtype=dtype))
        self.register_buffer("last", torch.tensor([[[1.0, -1.0]]], dtype=dtype))

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M, T) -> two tensors (B, M + 1, T), zero except for one frame each."""
        ones = torch.ones_like(mel[:, :1])
        first = F.conv1d(F.pad(ones, (1, 0)), self.first)  # 1 at the frame without a predecessor
        last = F.conv1d(F.pad(ones, (0, 1)), self.last)
        return torch.cat([first * mel, first], dim=1), torch.cat([last * mel, last], dim=1)


class ComposedModulation(nn.Module):
    """A chain of transposed convolutions of the mel as one convolution."""

    def __init__(self, convs: Sequence[nn.ConvTranspose1d]) -> None:
        """Args: convs: the chain, two or more; kernels of twice their stride, padded by half of it."""
        super().__init__()
        dtype = convs[0].weight.dtype
        n_mels, self.channels = convs[0].in_channels, convs[-1].out_channels
        # Impulse responses of the chain: each mel band in each of 5 frames, and the response to silence. Frames 1 to 3
        # are not at an end.
        impulses = torch.cat([torch.eye(n_mels, dtype=torch.float64), torch.zeros(1, n_mels, dtype=torch.float64)])
        responses = {place: _response(convs, impulses, place) for place in (0, 2, 4)}
        bias = responses[2][-1, ..., 2]  # (S, C): response to silence, not at an end
        inner = responses[2][:-1] - responses[2][-1]  # (M, S, C, 5)
        # tap t of frame f multiplies frame f + t - 1: an impulse in frame 2 shows tap t at frame 2 - (t - 1)
        weight = torch.stack([inner[..., 3 - tap] for tap in range(_TAPS)], dim=-1)  # (M, S, C, taps)
        ends = []
        for place in (0, 4):
            within = torch.cat([weight[..., 1], bias[None]])  # contribution of a frame to itself, not at an end
            silent = responses[place][-1, ..., place]
            found = torch.cat([responses[place][:-1, ..., place] - silent, silent[None]])
            ends.append(found - within)  # (M + 1, S, C)
        samples = bias.shape[0]
        # samples at the beginning and at the end of a frame that an end of the mel changes
        changed = [end.abs().amax(dim=(0, 2)) > 1e-12 * weight.abs().max() for end in ends]
        # at least one sample, since weights may be 0
        head = max([0, *changed[0].nonzero()[:, 0].tolist()]) + 1
        tail = min([samples - 1, *changed[1].nonzero()[:, 0].tolist()])
        if head >= tail:
            raise ValueError(f"the ends of the mel change samples 0 … {head - 1} and {tail} … of a frame's {samples}")
        rows = [slice(0, head), slice(head, tail), slice(tail, samples)]
        self.head, self.body, self.tail = (_conv(weight[:, part], bias[part], dtype) for part in rows)
        self.first, self.last = (
            _conv(end[:, part, :, None], None, dtype) for end, part in zip(ends, (rows[0], rows[2]), strict=True)
        )

    def forward(self, mel: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """mel (B, M, T) and its `FrameEdges` -> (B, C, S·T)."""
        parts = [
            self.head(mel) + self.first(first),
            self.body(mel),
            self.tail(mel) + self.last(last),
        ]
        samples = torch.unflatten(torch.cat(parts, dim=1), 1, (-1, self.channels))  # (B, S, C, T)
        return samples.permute(0, 2, 3, 1).flatten(2)


def _conv(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> nn.Conv1d:
    """Weights (inputs, samples, channels, taps) and bias (samples, channels) as a layer over frames."""
    inputs, samples, channels, taps = weight.shape
    conv = nn.Conv1d(inputs, samples * channels, taps, padding=taps // 2, bias=bias is not None)
    conv.weight.data = weight.permute(1, 2, 0, 3).flatten(0, 1).to(dtype)
    if bias is not None:
        assert conv.bias is not None
        conv.bias.data = bias.flatten().to(dtype)
    return conv


def _response(convs: Sequence[nn.ConvTranspose1d], impulses: Tensor, place: int) -> Tensor:
    """(N, M) in one of 5 frames -> (N, S, C, 5)."""
    x = F.pad(impulses[:, :, None], (place, 4 - place))
    for conv in convs:
        x = _transposed(x, conv)
    return torch.unflatten(x, 2, (5, -1)).permute(0, 3, 1, 2)


def _transposed(x: Tensor, conv: nn.ConvTranspose1d) -> Tensor:
    """(N, C, T) -> (N, D, stride·T): a transposed convolution in float64, with a kernel of twice its stride.

    All items and frames as one matrix product: PyTorch multiplies item by item, which reads the weights each time.
    """
    (stride,), padding = conv.stride, int(conv.padding[0])
    items, _, frames = x.shape
    products = x.transpose(1, 2).flatten(0, 1) @ conv.weight.double().flatten(1)
    products = products.reshape(items, frames, -1, 2, stride)  # (N, T, D, halves, stride)
    # the second half of a frame's kernel overlaps the first half of the next one's
    sums = F.pad(products[:, :, :, 0], (0, 0, 0, 0, 0, 1)) + F.pad(products[:, :, :, 1], (0, 0, 0, 0, 1, 0))
    made = sums.transpose(1, 2).flatten(2)[..., padding : stride * (frames + 1) - padding]
    return made if conv.bias is None else made + conv.bias.double()[:, None]
