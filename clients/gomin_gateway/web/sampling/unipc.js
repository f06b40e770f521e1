// UniPC: a predictor of second order, corrected by the next prediction; see gomin_client/sampling/unipc.py.
import { predictedSignal, scales } from "./base.js";
import { MultistepSolver } from "./multistep.js";

const { expm1, fround, sqrt } = Math;

const DEFAULT_STEPS = 10; // fewer if the model has fewer timesteps

export class UniPC extends MultistepSolver {
  // See base.js.
  *chain(noise) {
    const { alphasCumprod, times } = this;
    const x = noise(0);
    const corrected = Float32Array.from(x); // the sample of the previous step
    const before = new Float32Array(x.length); // the signal that the previous step predicted
    const earlier = new Float32Array(x.length); // the signal that the one before it predicted
    for (const [step, alphaBar] of alphasCumprod.entries()) {
      const isLast = step + 1 === alphasCumprod.length;
      const [noiseScale, signalScale] = scales(alphaBar);

      const epsilon = yield { x, timestep: this.timesteps[step] };
      if (isLast) {
        for (let i = 0; i < x.length; i++) x[i] = predictedSignal(x[i], epsilon[i], noiseScale, signalScale);
        break;
      }
      const next = times[step + 1] - times[step];
      const [xWeight, targetWeight] = updateWeights(alphaBar, alphasCumprod[step + 1], next);
      const h = step ? times[step] - times[step - 1] : 0;
      const extrapolation = fround(next / h / 2);
      const correct = corrector(step, alphasCumprod, times);
      for (let i = 0; i < x.length; i++) {
        const x0 = predictedSignal(x[i], epsilon[i], noiseScale, signalScale);
        if (step) corrected[i] = correct(corrected[i], x0, before[i], earlier[i]);
        const target = step ? fround(x0 + fround(extrapolation * fround(x0 - before[i]))) : x0;
        x[i] = fround(xWeight * corrected[i]) - fround(targetWeight * target);
        earlier[i] = before[i];
        before[i] = x0;
      }
    }
    return x;
  }
}

// A function of one value of the sample of the previous step and of three predictions: the sample of this step.
function corrector(step, alphasCumprod, times) {
  if (step === 0) return null;
  const h = times[step] - times[step - 1];
  const [xWeight, targetWeight] = updateWeights(alphasCumprod[step - 1], alphasCumprod[step], h);
  if (step === 1) {
    return (x, x0, before) => {
      const target = fround(before + fround(0.5 * fround(x0 - before)));
      return fround(xWeight * x) - fround(targetWeight * target);
    };
  }
  const ratio = (times[step - 1] - times[step - 2]) / h;
  const [past, present] = correctorWeights(h, ratio);
  const pastWeight = fround(past / ratio);
  const presentWeight = fround(present);
  return (x, x0, before, earlier) => {
    const partial = fround(before + fround(pastWeight * fround(before - earlier)));
    const target = fround(partial + fround(presentWeight * fround(x0 - before)));
    return fround(xWeight * x) - fround(targetWeight * target);
  };
}

// The weights of the past and of the present difference of predictions in a corrector of order 2.
//   h      length of the step that is corrected
//   ratio  length of the step before it, divided by h
function correctorWeights(h, ratio) {
  const shrink = expm1(-h);
  const first = -shrink / h - 1;
  const second = -first / h - 0.5;
  const past = (first - 2 * second) / shrink / (1 + ratio);
  return [past, first / shrink - past];
}

// Weights of the sample and of the signal, the latter to be subtracted, of a step of length h.
function updateWeights(alphaBar, following, h) {
  return [fround(sqrt((1 - following) / (1 - alphaBar))), fround(sqrt(following) * expm1(-h))];
}

// A chain of any number of steps, or of given timesteps. Throws a RangeError; see `solverTimesteps`.
export function make(schedule, { steps = null, timesteps = null } = {}) {
  return new UniPC(schedule, timesteps ?? steps ?? Math.min(DEFAULT_STEPS, schedule.length));
}
