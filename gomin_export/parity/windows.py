"""Proof of a model's halo: called in windows, as clients call it, it must give the output of the whole mel.

The halo is computed from a network's kernels, dilations and strides. If it were too short, or if the exported graph had
a larger receptive field than the network, recordings would click at window borders, and no other case would fail.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.contract import model as contract
from gomin_client.inference.windows import cut
from gomin_export.parity.gate import Infer, Inputs

KEEP = 4  # frames that an inner window keeps: few, so that most samples are near a border


def size(halo: int) -> int:
    """Frames of a window."""
    return 2 * halo + KEEP


def frames(halo: int) -> int:
    """Frames of a mel that is cut into three windows: a first, an inner and a last one."""
    return size(halo) + KEEP + 1


def in_windows(infer: Infer, hop_length: int, halo: int) -> Infer:
    """A function that calls a model in windows and joins their outputs.

    Args:
        infer: calls the model. Mel and signal are cut into windows; other tensors are sent whole with each window.
        hop_length: samples per frame.
        halo: frames that are trimmed at both ends of a window, except at the ends of the mel.
    """

    def windowed(inputs: Inputs) -> NDArray[np.floating[Any]]:
        parts = []
        for window in cut(inputs[contract.MEL].shape[-1], size(halo), halo):
            piece = dict(inputs)
            for name, samples in ((contract.MEL, 1), (contract.SIGNAL, hop_length)):
                if name in inputs:
                    first = window.first * samples
                    piece[name] = np.ascontiguousarray(inputs[name][..., first : first + window.length * samples])
            made = infer(piece)
            parts.append(made[..., window.skip * hop_length : (window.skip + window.keep) * hop_length])
        return np.concatenate(parts, axis=-1)

    return windowed
