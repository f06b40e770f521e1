"""What the readers and writers of audio formats have in common: the decoder's interface, and errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


# Ogg Vorbis and Opus keep surround channels in an order of their own, and libsndfile leaves it. Number of channels →
# the place in a file of each channel of WAV and of everything else (Vorbis I, 4.3.9; RFC 7845, 5.1.1.2)
VORBIS_ORDER = {
    3: [0, 2, 1],
    5: [0, 2, 1, 3, 4],
    6: [0, 2, 1, 5, 3, 4],
    7: [0, 2, 1, 6, 5, 3, 4],
    8: [0, 2, 1, 7, 5, 6, 3, 4],
}

TRUNCATED = "is truncated; read as far as it goes"


class JoinedDecoder:
    """`Decoder` of several parts, one after the other."""

    def __init__(self, parts: Sequence[Callable[[], Decoder]]) -> None:
        """Open the first part.

        Args:
            parts: functions that open them, at least one.

        Raises:
            DecodingError: see `Decoder`.
        """
        self._parts = iter(parts)
        self._decoder = next(self._parts)()
        self._defect = ""
        self.rate, self.channels = self._decoder.rate, self._decoder.channels

    def read(self, size: int) -> NDArray[np.float32]:
        """See `Decoder.read`."""
        while True:
            samples = self._decoder.read(size)
            if len(samples):
                return samples
            part = next(self._parts, None)
            if part is None:
                return samples
            self._defect = self.defect()
            self._decoder.close()
            self._decoder = part()
            if (self._decoder.rate, self._decoder.channels) != (self.rate, self.channels):
                raise DecodingError(
                    f"its format changes from {self.channels} channels at {self.rate} Hz to {self._decoder.channels} "
                    f"channels at {self._decoder.rate} Hz; split it there"
                )

    def defect(self) -> str:
        """See `Decoder.defect`."""
        return self._defect or self._decoder.defect()

    def close(self) -> None:
        """See `Decoder.close`."""
        self._decoder.close()
