// DPM-Solver++(2M) SDE: as DPM-Solver++(2M), with fresh noise in each step; see gomin_client/sampling/dpm_solver_sde.py.
import { halfLogSnr, predictedSignal, scales } from "./base.js";
import { solverTimesteps } from "./spacing.js";

const { exp, expm1, fround, sqrt } = Math;

const DEFAULT_STEPS = 25; // fewer if the model has fewer timesteps

export class SDEDPMSolver {
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

      const epsilon = yield { x, timestep: this.timesteps[step] };
      if (isLast) {
        for (let i = 0; i < x.length; i++) x[i] = predictedSignal(x[i], epsilon[i], noiseScale, signalScale);
        break;
      }
      const following = alphasCumprod[step + 1];
      const h = times[step + 1] - times[step];
      const extrapolation = step ? fround(h / (times[step] - times[step - 1]) / 2) : 0;
      const share = -expm1(-2 * h); // of the power that this step replaces
      const xWeight = fround(sqrt((1 - following) / (1 - alphaBar)) * exp(-h));
      const targetWeight = fround(sqrt(following) * share);
      const noiseWeight = fround(sqrt((1 - following) * share));
      const drawn = noise(step + 1);
      for (let i = 0; i < x.length; i++) {
        const x0 = predictedSignal(x[i], epsilon[i], noiseScale, signalScale);
        const target = step ? fround(x0 + fround(extrapolation * fround(x0 - before[i]))) : x0;
        x[i] = fround(fround(xWeight * x[i]) + fround(targetWeight * target)) + fround(noiseWeight * drawn[i]);
        before[i] = x0;
      }
    }
    return x;
  }
}

// A chain of any number of steps, or of given timesteps. Throws a RangeError; see `solverTimesteps`.
export function make(schedule, { steps = null, timesteps = null } = {}) {
  return new SDEDPMSolver(schedule, timesteps ?? steps ?? Math.min(DEFAULT_STEPS, schedule.length));
}
