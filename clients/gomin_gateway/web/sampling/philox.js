// Philox4x64-10, a counter-based generator (Salmon et al. 2011): numpy.random.Philox.
//
// JavaScript has no fast 64-bit integers; BigInt takes ten times as long. A 64-bit word is a pair of 32-bit halves
// here, the low one first.

export const WORDS_PER_BLOCK = 4; // from each value of the counter

const TWO_32 = 2 ** 32;
const MASK_64 = 0xffffffffffffffffn;
const ROUNDS = 10;
const HALVES_PER_ROUND = 4;
const KEY_INCREMENTS = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn];

// Multipliers 0xd2e7470ee14c6c93 and 0xca5a826395121157
const P_HIGH = 0xd2e7470e;
const P_LOW = 0xe14c6c93;
const Q_HIGH = 0xca5a8263;
const Q_LOW = 0x95121157;

// The keys of all rounds. key: BigInt within 0 … 2**64 - 1; the generator's second key word is 0.
export function roundKeys(key) {
  const keys = new Uint32Array(HALVES_PER_ROUND * ROUNDS);
  let words = [key, 0n];
  for (let round = 0; round < ROUNDS; round++) {
    keys.set(words.flatMap((word) => [Number(word & 0xffffffffn), Number(word >> 32n)]), HALVES_PER_ROUND * round);
    words = words.map((word, i) => (word + KEY_INCREMENTS[i]) & MASK_64);
  }
  return keys;
}

// Blocks of the counter values (first + 1, second, 0, 0), (first + 2, second, 0, 0) … as numpy makes them: it counts
// before it makes a block.
//   out     Uint32Array of 2 · WORDS_PER_BLOCK halves for each block; filled
//   keys    see `roundKeys`
//   first   BigInt within 0 … 2**64 - 1 - blocks
//   second  whole number within 0 … 2**32 - 1
export function fillBlocks(out, keys, first, second) {
  let low = Number(first & 0xffffffffn);
  let high = Number(first >> 32n);
  for (let at = 0; at < out.length; at += 2 * WORDS_PER_BLOCK) {
    low += 1;
    if (low === TWO_32) {
      low = 0;
      high += 1;
    }
    // words a, b, c and d, each as its low and its high half
    let al = low;
    let ah = high;
    let bl = second;
    let bh = 0;
    let cl = 0;
    let ch = 0;
    let dl = 0;
    let dh = 0;
    for (let k = 0; k < keys.length; k += HALVES_PER_ROUND) {
      // 128-bit products of the multipliers with a and c, from 32-bit halves; p3 is the highest quarter
      const p0 = Math.imul(P_LOW, al) >>> 0;
      const pl = Math.imul(P_LOW, ah) >>> 0;
      const ph = Math.imul(P_HIGH, al) >>> 0;
      const pt = Math.imul(P_HIGH, ah) >>> 0;
      const p1 = upper(P_LOW, al, p0) + pl + ph;
      const p2 = upper(P_LOW, ah, pl) + upper(P_HIGH, al, ph) + pt + Math.floor(p1 / TWO_32);
      const p3 = upper(P_HIGH, ah, pt) + Math.floor(p2 / TWO_32);
      const q0 = Math.imul(Q_LOW, cl) >>> 0;
      const ql = Math.imul(Q_LOW, ch) >>> 0;
      const qh = Math.imul(Q_HIGH, cl) >>> 0;
      const qt = Math.imul(Q_HIGH, ch) >>> 0;
      const q1 = upper(Q_LOW, cl, q0) + ql + qh;
      const q2 = upper(Q_LOW, ch, ql) + upper(Q_HIGH, cl, qh) + qt + Math.floor(q1 / TWO_32);
      const q3 = upper(Q_HIGH, ch, qt) + Math.floor(q2 / TWO_32);
      al = (q2 ^ bl ^ keys[k]) >>> 0;
      ah = (q3 ^ bh ^ keys[k + 1]) >>> 0;
      bl = q0;
      bh = q1 >>> 0;
      cl = (p2 ^ dl ^ keys[k + 2]) >>> 0;
      ch = (p3 ^ dh ^ keys[k + 3]) >>> 0;
      dl = p0;
      dh = p1 >>> 0;
    }
    out[at] = al;
    out[at + 1] = ah;
    out[at + 2] = bl;
    out[at + 3] = bh;
    out[at + 4] = cl;
    out[at + 5] = ch;
    out[at + 6] = dl;
    out[at + 7] = dh;
  }
}

// The upper 32 bits of a product of 32-bit numbers, whose lower 32 bits are known. As a float64, the product is off by
// up to 2**10, so what is left after its lower bits, in units of 2**32, is off by up to 2**-22: rounding makes it
// exact.
function upper(x, y, lower) {
  return Math.round((x * y - lower) / TWO_32);
}
