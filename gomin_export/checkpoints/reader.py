"""The tensors of one checkpoint, and the settings that their shapes show."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from gomin_export.errors import CheckpointError

WINDOW = "melspec_layer.spectrogram.window"

_DEFAULT_MEL_SETTINGS = {"sample_rate": 24000, "win_length": 1024}


class CheckpointReader:
    """The tensors of one checkpoint file, and the settings that their shapes show.

    Attributes:
        path: the file, for messages.
        tensors: name → float32 tensor on the CPU.
        notes: a sentence about each change and omission.
    """

    def __init__(
        self, path: Path, tensors: Mapping[str, Tensor], mel_buffers: Mapping[str, Tensor], notes: Sequence[str] = ()
    ) -> None:
        self.path = path
        self.tensors = dict(tensors)
        self.notes = tuple(notes)
        self._mel_buffers = dict(mel_buffers)

    def error(self, problem: str) -> CheckpointError:
        """A `CheckpointError` that begins with the file's name."""
        return CheckpointError(f"{self.path}: {problem}")

    def count(self, pattern: str) -> int:
        """The number of indices of tensors whose names begin with pattern.format(index).

        Counted up to the highest index of any tensor, so that a missing one does not make the network smaller.

        Raises:
            CheckpointError: there is none; or an index is higher than the number of tensors, as in a hostile file.
        """
        expression = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d{1,9})"))
        found = [int(match[1]) for name in self.tensors if (match := expression.match(name))]
        if not found:
            raise self.error(f"tensor {pattern.format(0)}* is missing")
        if max(found) >= len(self.tensors):
            raise self.error(f"tensor {pattern.format(max(found))}* has a higher index than the file has tensors")
        return max(found) + 1

    def size(self, name: str, dim: int, rank: int) -> int:
        """The size of one dimension of a tensor that must have `rank` dimensions.

        Raises:
            CheckpointError: the tensor is missing, or has another number of dimensions.
        """
        if name not in self.tensors:
            raise self.error(f"tensor {name} is missing")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != rank:
            raise self.error(f"tensor {name} has shape {shape}; expected {rank} dimensions")
        return shape[dim]

    def agreed(self, *sources: tuple[str, int, int]) -> int:
        """A size that several tensors show, by majority, so that one misshapen tensor does not decide it.

        Args:
            *sources: (tensor name, dimension, rank); with no majority the earliest wins.
        """
        readable = [
            (name, dim) for name, dim, rank in sources if name in self.tensors and self.tensors[name].ndim == rank
        ]
        if not readable:
            name, dim, rank = sources[0]
            return self.size(name, dim, rank)
        return statistics.mode(self.tensors[name].shape[dim] for name, dim in readable)

    def mel_settings(self) -> dict[str, int]:
        """Mel settings; the tensors show them only if the original program left its mel buffers in the checkpoint."""
        settings = dict(_DEFAULT_MEL_SETTINGS)
        window = self._mel_buffers.get(WINDOW)
        if window is not None and window.ndim == 1:
            settings["win_length"] = len(window)
        return settings
