// Noise schedules: how much of the signal is left at each timestep; see gomin_client/sampling/schedules.py.
import { general, oneOf, quoted } from "./text.js";

const LINEAR_BETA_START = 1e-4;
const LINEAR_BETA_END = 0.05;
const COSINE_OFFSET = 0.008;
const MAX_BETA = 0.999;

export class NoiseSchedule {
  // alphasCumprod: Float32Array, ᾱ of each timestep
  constructor(alphasCumprod) {
    this.alphasCumprod = alphasCumprod;
  }

  get length() {
    return this.alphasCumprod.length;
  }

  // The schedule of given betas, which are rounded to float32. Throws a RangeError for betas out of range.
  static fromBetas(betas) {
    const rounded = Float32Array.from(betas);
    if (!rounded.length) throw new RangeError("betas of shape (0,): expected one or more, in one dimension");
    const wrong = rounded.findIndex((beta) => !(beta > 0 && beta < 1));
    if (wrong >= 0) {
      throw new RangeError(`betas[${wrong}] is ${general(rounded[wrong])}: expected a number between 0 and 1`);
    }
    // float32 factors, multiplied in float64
    return new NoiseSchedule(Float32Array.from(products(rounded.map((beta) => 1 - beta))));
  }

  static linear(numSteps) {
    return NoiseSchedule.fromBetas(linspace(LINEAR_BETA_START, LINEAR_BETA_END, numSteps));
  }

  static cosine(numSteps) {
    return fromAlphasCumprod(cosine(numSteps));
  }

  static interpolated(numSteps) {
    const linear = products(linspace(LINEAR_BETA_START, LINEAR_BETA_END, numSteps).map((beta) => 1 - beta));
    const other = cosine(numSteps);
    return fromAlphasCumprod(linear.map((value, i) => {
      const weight = i / Math.max(numSteps - 1, 1);
      return (1 - weight) * value + weight * other[i];
    }));
  }

  // A schedule by its name. Throws a RangeError if there is no such schedule.
  static named(name, numSteps) {
    if (!SCHEDULES.includes(name)) throw new RangeError(`schedule ${quoted(name)}: expected ${oneOf(SCHEDULES)}`);
    return CONSTRUCTORS[name](numSteps);
  }
}

const CONSTRUCTORS = {
  linear: NoiseSchedule.linear,
  cosine: NoiseSchedule.cosine,
  interpolated: NoiseSchedule.interpolated,
};
export const SCHEDULES = Object.keys(CONSTRUCTORS);

// numpy.linspace: a Float64Array
export function linspace(start, stop, count) {
  const step = (stop - start) / (count - 1);
  const values = Float64Array.from({ length: count }, (_, i) => i * step + start);
  if (count > 1) values[count - 1] = stop;
  else values.fill(start); // the step is not finite
  return values;
}

function fromAlphasCumprod(alphasCumprod) {
  return NoiseSchedule.fromBetas(alphasCumprod.map((value, i) => {
    const before = i ? alphasCumprod[i - 1] : 1;
    return Math.min(1 - value / before, MAX_BETA);
  }));
}

// numpy.cumprod in float64: a Float64Array
function products(factors) {
  let product = 1;
  return Float64Array.from(factors, (factor) => (product *= factor));
}

// ᾱ of the cosine schedule, uncapped: the last is nearly 0.
function cosine(numSteps) {
  const power = (i) => Math.cos((((i / numSteps + COSINE_OFFSET) / (1 + COSINE_OFFSET)) * Math.PI) / 2) ** 2;
  const first = power(0);
  return Float64Array.from({ length: numSteps }, (_, i) => power(i + 1) / first);
}
