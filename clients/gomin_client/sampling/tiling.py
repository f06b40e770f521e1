"""Tiles of a long mel: how much one denoiser call holds."""

from __future__ import annotations

from dataclasses import dataclass

TILE_FRAMES = 512


@dataclass(frozen=True)
class Tiling:
    """How much one denoiser call holds, so that the denoiser's memory does not grow with the mel.

    A longer mel is denoised in tiles of one length, at every step, whose outputs are trimmed by the halo: the first
    begins at frame 0, the last ends at the last frame, so the zero padding falls where it would. The result equals the
    untiled one to float rounding.

    Attributes:
        hop_length: samples of a frame.
        halo_frames: frames to either side that the denoiser's output depends on.
        tile_frames: the largest number of frames of a tile, halos included. A call holds several tiles, of one length,
            as long as they have no more frames together.
        max_items: the largest number of tiles of a call.

    Raises:
        ValueError: a tile that consists of halo only.
    """

    hop_length: int
    halo_frames: int
    tile_frames: int = TILE_FRAMES
    max_items: int = 1

    def __post_init__(self) -> None:
        if self.tile_frames <= 2 * self.halo_frames:
            raise ValueError(
                f"tiles of {self.tile_frames} frames: expected more than {2 * self.halo_frames}, the denoiser's halo "
                "to both sides"
            )

    def tiles(self, frames: int) -> list[tuple[int, int, int]]:
        """(first, begin, end) of each tile of a mel: it takes frames from `first`, and gives begin … end - 1."""
        length = min(frames, self.tile_frames)
        found: list[tuple[int, int, int]] = []
        begin = 0
        while begin < frames:
            first = min(max(begin - self.halo_frames, 0), frames - length)
            end = frames if first + length == frames else first + length - self.halo_frames
            found.append((first, begin, end))
            begin = end
        return found

    def items(self, frames: int) -> int:
        """The number of tiles of so many frames that a call may hold."""
        return max(1, min(self.max_items, self.tile_frames // frames))
