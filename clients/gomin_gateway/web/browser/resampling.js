// Sample rate conversion by a windowed sinc whose shape was fitted to the filters of soxr's HQ quality, which the client
// uses: for simple ratios (48000 Hz to 24000 Hz, for example) the two are equal to 1e-7, for others, where soxr has
// several stages, to 1e-4 of the largest coefficient. Measured on recordings: docs/browser.md.

const CUTOFF = 0.47843; // half of the amplitude is left here, as a share of the lower of both rates
const SINGLE_STAGE = { halfWidth: 97, beta: 13.04 }; // in samples of the lower rate; of a Kaiser window
const SEVERAL_STAGES = { halfWidth: 110.3, beta: 16 };
const MOST_FILTERS = 1024; // kept; an unusual rate has more, which are made again
const PER_SAMPLE = 4096; // entries of the table for a sample of the lower rate; between them it is linear

// Mono float32 samples at one rate -> at another; ceil(samples · target / rate) of them.
export function resample(samples, rate, target) {
  if (rate === target) return samples;
  const shared = divisor(rate, target);
  const up = target / shared;
  const down = rate / shared;
  const filters = new Filters(up, down);
  const result = new Float32Array(Math.ceil((samples.length * target) / rate));
  for (let n = 0; n < result.length; n++) {
    const position = n * down; // of the output sample, in input samples, times `up`
    const taps = filters.at(position % up);
    const start = Math.floor(position / up) - filters.before; // the input sample of the first tap
    const first = Math.max(0, -start);
    const end = Math.min(taps.length, samples.length - start);
    let sum = 0;
    for (let k = first; k < end; k++) sum += samples[start + k] * taps[k];
    result[n] = sum;
  }
  return result;
}

// The taps for each position of an output sample between two input samples.
class Filters {
  #up;
  #table;
  #lower; // samples of the lower rate for each sample of the input
  #length;
  #known = new Map();
  before; // taps before the input sample at or before the output sample

  constructor(up, down) {
    const { table, halfWidth } = kernel(up, down);
    this.#up = up;
    this.#table = table;
    this.#lower = Math.min(1, up / down);
    this.before = Math.floor(halfWidth / this.#lower);
    this.#length = 2 * this.before + 2;
  }

  at(phase) {
    let taps = this.#known.get(phase);
    if (!taps) {
      taps = this.#made(phase);
      if (this.#known.size < MOST_FILTERS) this.#known.set(phase, taps);
    }
    return taps;
  }

  #made(phase) {
    const table = this.#table;
    const taps = new Float64Array(this.#length);
    const centre = phase / this.#up + this.before;
    for (let k = 0; k < taps.length; k++) {
      const place = Math.abs(centre - k) * this.#lower * PER_SAMPLE;
      const at = Math.min(Math.floor(place), table.length - 2);
      taps[k] = this.#lower * (table[at] + (place - at) * (table[at + 1] - table[at]));
    }
    return taps;
  }
}

// One half of the symmetric kernel, by its distance from the centre.
function kernel(up, down) {
  const isSimple = Math.max(up, down) <= 4 && down < 4 * up;
  const { halfWidth, beta } = isSimple ? SINGLE_STAGE : SEVERAL_STAGES;
  const table = new Float64Array(Math.ceil(halfWidth * PER_SAMPLE) + 2); // zero from the half width on
  const scale = besselI0(beta);
  for (let i = 0; i < table.length; i++) {
    const u = i / PER_SAMPLE;
    if (u >= halfWidth) break;
    const angle = 2 * Math.PI * CUTOFF * u;
    const sinc = i === 0 ? 1 : Math.sin(angle) / angle;
    table[i] = (2 * CUTOFF * sinc * besselI0(beta * Math.sqrt(1 - (u / halfWidth) ** 2))) / scale;
  }
  return { table, halfWidth };
}

// The modified Bessel function of the first kind and order 0, by its power series.
function besselI0(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > sum * 1e-17; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function divisor(a, b) {
  return b === 0 ? a : divisor(b, a % b);
}
