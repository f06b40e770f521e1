// DPM-Solver++(2M): few steps, of second order; see gomin_client/sampling/dpm_solver.py.
import { predictedSignal, scales } from "./base.js";
import { linspace } from "./schedules.js";
import { checkSteps, chooseSpacing, roundHalfToEven, trailing } from "./spacing.js";
import { quoted } from "./text.js";

const { fround, sqrt } = Math;

const DEFAULT_STEPS = 20; // fewer if the model has fewer timesteps

export class DPMSolver {
  // Throws a RangeError if steps or spacing is out of range, or timesteps repeat because there are too many steps.
  constructor(schedule, steps, spacing = "trailing") {
    this.schedule = schedule;
    const total = checkSteps(steps, schedule);
    const stride = Math.floor(total / (steps + 1));
    this.timesteps = chooseSpacing(spacing, {
      leading: Array.from({ length: steps }, (_, i) => (steps - i) * stride),
      linspace: Array.from(linspace(0, total - 1, steps + 1), roundHalfToEven).slice(1).reverse(),
      trailing: trailing(total, steps),
    });
    if (new Set(this.timesteps).size < steps) {
      throw new RangeError(
        `steps ${steps}: with spacing ${quoted(spacing)}, timesteps repeat; take fewer, or 'trailing'`,
      );
    }
  }

  // See base.js.
  *chain(noise) {
    const alphasCumprod = this.timesteps.map((timestep) => this.schedule.alphasCumprod[timestep]);
    const halfLogSnr = alphasCumprod.map((alphaBar) => Math.log(alphaBar / (1 - alphaBar)) / 2);
    const x = noise(0);
    const before = new Float32Array(x.length); // the signal that the previous step predicted
    for (const [step, alphaBar] of alphasCumprod.entries()) {
      const isLast = step + 1 === alphasCumprod.length;
      const [noiseScale, signalScale] = scales(alphaBar);
      const following = isLast ? 1 : alphasCumprod[step + 1];
      const h = isLast ? Infinity : halfLogSnr[step + 1] - halfLogSnr[step];
      const extrapolation = step ? fround(h / (halfLogSnr[step] - halfLogSnr[step - 1]) / 2) : 0;
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

// A chain of any number of steps. Throws a RangeError; see `DPMSolver`.
export function make(schedule, steps = null) {
  return new DPMSolver(schedule, steps ?? Math.min(DEFAULT_STEPS, schedule.length));
}
