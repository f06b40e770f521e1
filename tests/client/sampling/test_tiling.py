import pytest

from gomin_client.sampling.tiling import Tiling

HOP = 4
HALO = 3


@pytest.mark.parametrize("tile", [7, 8, 20])
@pytest.mark.parametrize("frames", [1, 6, 7, 8, 13, 20, 21, 34, 100])
def test_tiles_cover_everything_once_with_their_halo(frames: int, tile: int) -> None:
    tiles = Tiling(HOP, HALO, tile).tiles(frames)

    length = min(frames, tile)
    assert [begin for _, begin, _ in tiles] == [0, *(end for _, _, end in tiles[:-1])]
    assert tiles[-1][2] == frames
    for first, begin, end in tiles:
        assert 0 <= first <= begin < end <= first + length <= frames
        assert begin - first >= HALO or first == 0
        assert first + length - end >= HALO or end == frames


def test_a_tile_must_be_more_than_its_halo() -> None:
    with pytest.raises(ValueError, match="tiles of 6 frames: expected more than 6"):
        Tiling(HOP, HALO, 6)
