// DPM-Solver++(2M): few steps, of second order; see gomin_client/sampling/dpm_solver.py.
import { predictedSignal, scales } from "./base.js";
import { MultistepSolver } from "./multistep.js";

const { expm1, fround, sqrt } = Math;

const DEFAULT_STEPS = 20; // fewer if the model has fewer timesteps

export class DPMSolver extends MultistepSolver {
  // See base.js.
  *chain(noise) {
    const { alphasCumprod, times } = this;
    const x = noise(0);
    const before = new Float32Array(x.length); // the signal that the previous step predicted
    for (const [step, alphaBar] of alphasCumprod.entries()) {
      const [noiseScale, signalScale] = scales(alphaBar);

      const epsilon = yield { x, timestep: this.timesteps[step] };
      if (step + 1 === alphasCumprod.length) {
        for (let i = 0; i < x.length; i++) x[i] = predictedSignal(x[i], epsilon[i], noiseScale, signalScale);
        break;
      }
      const extrapolation = step ? fround((times[step + 1] - times[step]) / (times[step] - times[step - 1]) / 2) : 0;
      const advanced = this.advance(step, noise);
      for (let i = 0; i < x.length; i++) {
        const x0 = predictedSignal(x[i], epsilon[i], noiseScale, signalScale);
        const target = step ? fround(x0 + fround(extrapolation * fround(x0 - before[i]))) : x0;
        x[i] = advanced(x[i], target, i);
        before[i] = x0;
      }
    }
    return x;
  }

  // A function of sample i and of the predicted signal there, as if it were the same all along: the sample after a step.
  advance(step, _noise) {
    const [alphaBar, following] = this.alphasCumprod.slice(step, step + 2);
    const h = this.times[step + 1] - this.times[step];
    const xWeight = fround(sqrt((1 - following) / (1 - alphaBar)));
    const targetWeight = fround(sqrt(following) * expm1(-h));
    return (x, target) => fround(xWeight * x) - fround(targetWeight * target);
  }
}

// A chain of any number of steps, or of given timesteps. Throws a RangeError; see `solverTimesteps`.
export function make(schedule, { steps = null, timesteps = null } = {}) {
  return new DPMSolver(schedule, timesteps ?? steps ?? Math.min(DEFAULT_STEPS, schedule.length));
}
