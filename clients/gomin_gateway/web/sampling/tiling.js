// Tiles of a long mel: limits the size of one denoiser call; see gomin_client/sampling/tiling.py.

export const TILE_FRAMES = 512;

export class Tiling {
  // hopLength: samples of a frame; haloFrames: frames to either side that the denoiser's output depends on; tileFrames:
  // most frames of a tile, halos included. Throws a RangeError for a tile that consists of halo only.
  constructor(hopLength, haloFrames, tileFrames = TILE_FRAMES) {
    if (tileFrames <= 2 * haloFrames) {
      throw new RangeError(
        `tiles of ${tileFrames} frames: expected more than ${2 * haloFrames}, the denoiser's halo to both sides`,
      );
    }
    Object.assign(this, { hopLength, haloFrames, tileFrames });
  }

  // [{first, begin, end}] of the tiles of a mel: input from frame `first`, output of frames begin … end - 1.
  tiles(frames) {
    const length = Math.min(frames, this.tileFrames);
    const found = [];
    for (let begin = 0; begin < frames;) {
      const first = Math.min(Math.max(begin - this.haloFrames, 0), frames - length);
      const end = first + length === frames ? frames : first + length - this.haloFrames;
      found.push({ first, begin, end });
      begin = end;
    }
    return found;
  }
}

// A denoiser for a whole mel, made from one for a tile: async (signal, timestep) -> predicted noise, in one array that
// the next call overwrites.
//   frames       of the mel
//   denoiseTile  async (signal, timestep, first, length) -> predicted noise, for the tile of `length` frames from frame
//                `first` of the mel; both are Float32Arrays of length · hopLength samples
export function tiledDenoiser(tiling, frames, denoiseTile) {
  const { hopLength } = tiling;
  const tiles = tiling.tiles(frames);
  const length = Math.min(frames, tiling.tileFrames);
  const predicted = new Float32Array(frames * hopLength);
  return async (signal, timestep) => {
    for (const { first, begin, end } of tiles) {
      const part = signal.subarray(first * hopLength, (first + length) * hopLength);
      const noise = await denoiseTile(part, timestep, first, length);
      predicted.set(noise.subarray((begin - first) * hopLength, (end - first) * hopLength), begin * hopLength);
    }
    return predicted;
  };
}
