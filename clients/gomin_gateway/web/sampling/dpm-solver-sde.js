// DPM-Solver++(2M) SDE: as DPM-Solver++(2M), with fresh noise in each step; see gomin_client/sampling/dpm_solver_sde.py.
import { DPMSolver } from "./dpm-solver.js";

const { exp, expm1, fround, sqrt } = Math;

const DEFAULT_STEPS = 25; // fewer if the model has fewer timesteps

export class SDEDPMSolver extends DPMSolver {
  // See `DPMSolver`.
  advance(step, noise) {
    const [alphaBar, following] = this.alphasCumprod.slice(step, step + 2);
    const h = this.times[step + 1] - this.times[step];
    const share = -expm1(-2 * h); // of the power that this step replaces
    const xWeight = fround(sqrt((1 - following) / (1 - alphaBar)) * exp(-h));
    const targetWeight = fround(sqrt(following) * share);
    const noiseWeight = fround(sqrt((1 - following) * share));
    const drawn = noise(step + 1);
    return (x, target, i) =>
      fround(fround(xWeight * x) + fround(targetWeight * target)) + fround(noiseWeight * drawn[i]);
  }
}

// A chain of any number of steps, or of given timesteps. Throws a RangeError; see `solverTimesteps`.
export function make(schedule, { steps = null, timesteps = null } = {}) {
  return new SDEDPMSolver(schedule, timesteps ?? steps ?? Math.min(DEFAULT_STEPS, schedule.length));
}
