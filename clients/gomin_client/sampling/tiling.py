"""Tiles of a long mel: limits the size of one denoiser call."""

from __future__ import annotations

from dataclasses import dataclass

TILE_FRAMES = 512


@dataclass(frozen=True)
class Tiling:
    """The size of one denoiser call, limited so that the denoiser's memory does not grow with the mel.

    At every step, a longer mel is denoised in tiles of one length, and the halo is cut off their outputs. The first
    tile begins at frame 0 and the last ends at the last frame, so the zero padding is the same as without tiles. The
    result equals the untiled one to float rounding.

    Attributes:
        hop_length: samples of a frame.
        halo_frames: number of frames to either side that the denoiser's output depends on.
        tile_frames: maximum number of frames of a tile, including halos, and of all tiles of a call together.
        max_items: maximum number of tiles of a call.

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
        """(first, begin, end) of each tile of a mel: input from frame `first`, output of frames begin … end - 1."""
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
        """The number of tiles with this number of frames in one call."""
        return max(1, min(self.max_items, self.tile_frames // frames))
