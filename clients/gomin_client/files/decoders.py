"""What the readers and writers of audio formats have in common: the decoder's interface, and errors."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class DecodingError(Exception):
    """A file that cannot be decoded; the text gives the reason."""


class EncodingError(Exception):
    """Audio that a format does not support, for example a number of channels; the text gives the reason."""


class Decoder(Protocol):
    """What the reader of an audio format returns: an open file, from which samples are read in order.

    Its methods raise `DecodingError` or OSError. It need not check the samples.

    Attributes:
        channels: number of channels.
        rate: sample rate in Hz.
    """

    channels: int
    rate: int

    def read(self, size: int) -> NDArray[np.float32]:
        """(up to `size`, channels) samples, full scale ±1; none at the end."""

    def defect(self) -> str:
        """A defect of the file, to follow its name: "is truncated; read as far as it goes"; empty if there is none.

        It is asked for at the end.
        """

    def close(self) -> None:
        """Close the file."""


TRUNCATED = "is truncated; read as far as it goes"
