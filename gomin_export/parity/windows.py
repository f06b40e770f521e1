"""The gate's check of a model's halo: window by window, as clients call it, it must answer what it does as a whole.

The halo is computed from a network's kernels, dilations and strides. Were it too short, or did the exported graph see
farther than the network, recordings would click at window borders and no other case of the gate would notice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client.contract import model as contract
from gomin_client.inference.windows import plan
from gomin_export.parity.gate import Infer, Inputs

KEEP = 4  # frames that an inner window keeps: few, so that most of what is computed lies near a border


def size(halo: int) -> int:
    """Frames of a window."""
    return 2 * halo + KEEP


def frames(halo: int) -> int:
    """Frames of a mel that takes three windows: a first, an inner and a last one."""
    return size(halo) + KEEP + 1


def in_windows(infer: Infer, hop_length: int, halo: int) -> Infer:
    """A model that is called window by window.

    Args:
        infer: calls it with tensors of any length; tensors whose last axis is 1 are the same for all windows.
        hop_length: samples a frame.
        halo: frames that are cut off at either end of a window, but at the ends of the whole.
    """

    def windowed(inputs: Inputs) -> NDArray[np.floating[Any]]:
        parts = []
        for window in plan(inputs[contract.MEL].shape[-1], size(halo), halo):
            piece = dict(inputs)
            for name, samples in ((contract.MEL, 1), (contract.SIGNAL, hop_length)):
                if name in inputs:
                    first = window.first * samples
                    piece[name] = np.ascontiguousarray(inputs[name][..., first : first + window.length * samples])
            made = infer(piece)
            parts.append(made[..., window.skip * hop_length : (window.skip + window.keep) * hop_length])
        return np.concatenate(parts, axis=-1)

    return windowed
