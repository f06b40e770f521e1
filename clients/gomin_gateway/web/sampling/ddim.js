// DDIM: a subset of the trained timesteps; eta sets the amount of fresh noise; see gomin_client/sampling/ddim.py.
import { predictedSignal, scales } from "./base.js";
import { linspace } from "./schedules.js";
import { checkSteps, checkTimesteps, chooseSpacing, roundHalfToEven, trailing } from "./spacing.js";
import { general } from "./text.js";

const { fround, sqrt } = Math;

const DEFAULT_STEPS = 25; // fewer if the model has fewer timesteps

export class DDIM {
  // steps: the number of steps, or an array of their timesteps. Throws a RangeError if steps, timesteps, eta or spacing
  // is out of range.
  constructor(schedule, steps, eta = 0, spacing = "trailing") {
    if (!(eta >= 0 && eta <= 1)) {
      throw new RangeError(
        `eta ${general(eta)}: expected a number from 0 (no fresh noise) to 1 (as much as ddpm)`,
      );
    }
    this.schedule = schedule;
    this.eta = eta;
    if (Array.isArray(steps)) {
      this.timesteps = checkTimesteps(steps, schedule);
      return;
    }
    const total = checkSteps(steps, schedule);
    const stride = Math.floor(total / steps);
    this.timesteps = chooseSpacing(spacing, {
      leading: Array.from({ length: steps }, (_, i) => (steps - 1 - i) * stride),
      linspace: Array.from(linspace(0, total - 1, steps), roundHalfToEven).reverse(),
      trailing: trailing(total, steps),
    });
  }

  // See base.js.
  *chain(noise) {
    const { alphasCumprod } = this.schedule;
    const x = noise(0);
    for (const [step, timestep] of this.timesteps.entries()) {
      const alphaBar = alphasCumprod[timestep];
      const next = this.timesteps[step + 1];
      const previous = next === undefined ? 1 : alphasCumprod[next];
      const fresh = this.eta * sqrt(((1 - previous) / (1 - alphaBar)) * (1 - alphaBar / previous));
      const [noiseScale, signalScale] = scales(alphaBar);
      const x0Weight = fround(sqrt(previous));
      const epsilonWeight = fround(sqrt(Math.max(1 - previous - fresh ** 2, 0)));

      const epsilon = yield { x, timestep };
      for (let i = 0; i < x.length; i++) {
        const x0 = predictedSignal(x[i], epsilon[i], noiseScale, signalScale);
        x[i] = fround(x0Weight * x0) + fround(epsilonWeight * epsilon[i]);
      }
      if (fresh > 0) {
        const weight = fround(fresh);
        const drawn = noise(step + 1);
        for (let i = 0; i < x.length; i++) x[i] += fround(weight * drawn[i]);
      }
    }
    return x;
  }
}

// A chain of any number of steps, or of given timesteps. Throws a RangeError; see `DDIM`.
export function make(schedule, { steps = null, eta = null, timesteps = null } = {}) {
  return new DDIM(schedule, timesteps ?? steps ?? Math.min(DEFAULT_STEPS, schedule.length), eta ?? 0);
}
