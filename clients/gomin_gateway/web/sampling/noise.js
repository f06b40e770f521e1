// The noise field; see gomin_client/sampling/noise.py.
import { WORDS_PER_BLOCK, fillBlocks, roundKeys } from "./philox.js";

const BLOCKS_AT_ONCE = 4096;
const TWO_53 = 2 ** 53;

// Standard normal noise as a function of (seed, draw, absolute sample index). The words are to the bit those of Python,
// the normals to the rounding of the browser's logarithm, sine and cosine.
export class NoiseField {
  #keys;

  // seed: BigInt or whole number within 0 … 2**64 - 1; length: samples; firstSample: absolute index of sample 0,
  // BigInt or whole number within 0 … 2**62 - 1. Throws a RangeError if one is out of range.
  constructor(seed, length, firstSample = 0) {
    this.seed = BigInt(seed);
    this.length = length;
    this.firstSample = BigInt(firstSample);
    if (this.seed < 0n || this.seed >= 1n << 64n) {
      throw new RangeError(`seed ${seed} out of range; expected 0 … 2**64 - 1`);
    }
    if (this.firstSample < 0n || this.firstSample >= 1n << 62n) {
      throw new RangeError(`first sample ${firstSample} out of range; expected 0 … 2**62 - 1`);
    }
    this.#keys = roundKeys(this.seed);
  }

  // Noise of one draw: a new Float32Array.
  draw(draw) {
    const perBlock = BigInt(WORDS_PER_BLOCK);
    const skip = Number(this.firstSample % perBlock);
    const first = this.firstSample / perBlock;
    const blocks = Math.ceil((skip + this.length) / WORDS_PER_BLOCK);
    const noise = new Float32Array(WORDS_PER_BLOCK * blocks);
    for (let done = 0; done < blocks; done += BLOCKS_AT_ONCE) {
      const words = new Uint32Array(2 * WORDS_PER_BLOCK * Math.min(BLOCKS_AT_ONCE, blocks - done));
      fillBlocks(words, this.#keys, first + BigInt(done), draw);
      toNormals(words, noise, WORDS_PER_BLOCK * done);
    }
    return noise.subarray(skip, skip + this.length);
  }
}

// Two normals of two words, by the Box-Muller transform.
function toNormals(words, noise, from) {
  for (let i = 0; i < words.length; i += 4) {
    const radius = Math.sqrt(-2 * Math.log1p(-uniform(words[i], words[i + 1])));
    const angle = 2 * Math.PI * uniform(words[i + 2], words[i + 3]);
    noise[from + i / 2] = radius * Math.cos(angle);
    noise[from + i / 2 + 1] = radius * Math.sin(angle);
  }
}

// The upper 53 bits of a word as a number within [0, 1).
function uniform(low, high) {
  return (high * 2 ** 21 + (low >>> 11)) / TWO_53;
}
