// DPM-Solver++(2M): few steps, of second order; see gomin_client/sampling/dpm_solver.py.
import { halfLogSnr, predictedSignal, scales } from "./base.js";
import { solverTimesteps } from "./spacing.js";

const { fround, sqrt } = Math;

const DEFAULT_STEPS = 20; // fewer if the model has fewer timesteps

export class DPMSolver {
  // Throws a RangeError; see `solverTimesteps`.
  constructor(schedule, steps, spacing = "trailing") {
    this.schedule = schedule;
    this.timesteps = solverTimesteps(steps, schedule, spacing);
  }

  // See base.js.
  *chain(noise) {
    const alphasCumprod = this.timesteps.map((timestep) => this.schedule.alphasCumprod[timestep]);
    const times = alphasCumprod.map(halfLogSnr);
    const x = noise(0);
    const before = new Float32Array(x.length); // the signal that the previous step predicted
    for (const [step, alphaBar] of alphasCumprod.entries()) {
      const isLast = step + 1 === alphasCumprod.length;
      const [noiseScale, signalScale] = scales(alphaBar);
      const following = isLast ? 1 : alphasCumprod[step + 1];
      const h = isLast ? Infinity : times[step + 1] - times[step];
      const extrapolation = step ? fround(h / (times[step] - times[step - 1]) / 2) : 0;
      const xWeight = fround(sqrt((1 - following) / (1 - alphaBar)));
      const targetWeight = fround(sqrt(following) * Math.expm1(-h));

      const epsilon = yield { x, timestep: this.timesteps[step] };
      for (let i = 0; i < x.length; i++) {
        const x0 = predictedSignal(x[i], epsilon[i], noiseScale, signalScale);
        if (isLast) {
          x[i] = x0;
          continue;
        }
        const target = step ? fround(x0 + fround(extrapolation * fround(x0 - before[i]))) : x0;
        x[i] = fround(xWeight * x[i]) - fround(targetWeight * target);
        before[i] = x0;
      }
    }
    return x;
  }
}

// A chain of any number of steps, or of given timesteps. Throws a RangeError; see `solverTimesteps`.
export function make(schedule, { steps = null, timesteps = null } = {}) {
  return new DPMSolver(schedule, timesteps ?? steps ?? Math.min(DEFAULT_STEPS, schedule.length));
}
