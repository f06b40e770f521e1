// DDPM: ancestral sampling over all timesteps; see gomin_client/sampling/ddpm.py.
const { fround, sqrt } = Math;

const MIN_VARIANCE = fround(1e-20);

export class DDPM {
  // timesteps: the denoiser's own timestep for each one of the schedule, if they are not 0, 1, 2 …
  constructor(schedule, timesteps = Array.from({ length: schedule.length }, (_, i) => i)) {
    this.schedule = schedule;
    this.timesteps = [...timesteps].reverse();
  }

  // See base.js. All arithmetic is float32.
  *chain(noise) {
    const { alphasCumprod } = this.schedule;
    const x = noise(0);
    for (const [step, timestep] of this.timesteps.entries()) {
      const t = alphasCumprod.length - 1 - step;
      const alphaBar = alphasCumprod[t];
      const previous = t > 0 ? alphasCumprod[t - 1] : 1;
      const alpha = fround(alphaBar / previous);
      const beta = fround(1 - alpha);
      const noiseShare = fround(1 - alphaBar);
      const previousNoiseShare = fround(1 - previous);
      const noiseScale = fround(sqrt(noiseShare));
      const signalScale = fround(sqrt(alphaBar));
      const x0Weight = fround(fround(fround(sqrt(previous)) * beta) / noiseShare);
      const xWeight = fround(fround(fround(sqrt(alpha)) * previousNoiseShare) / noiseShare);

      const epsilon = yield { x, timestep };
      for (let i = 0; i < x.length; i++) {
        const signal = fround(fround(x[i] - fround(noiseScale * epsilon[i])) / signalScale);
        const x0 = signal < -1 ? -1 : signal > 1 ? 1 : signal;
        x[i] = fround(x0Weight * x0) + fround(xWeight * x[i]);
      }
      if (t > 0) {
        const variance = Math.max(fround(fround(previousNoiseShare / noiseShare) * beta), MIN_VARIANCE);
        const scale = fround(sqrt(variance));
        const fresh = noise(step + 1);
        for (let i = 0; i < x.length; i++) x[i] += fround(scale * fresh[i]);
      }
    }
    return x;
  }
}

// The chain over all timesteps. Throws a RangeError for another number of steps.
export function make(schedule, { steps = null } = {}) {
  checkFixedSteps("ddpm", steps, schedule.length);
  return new DDPM(schedule);
}

// Refuse a number of steps other than the only one that a sampler takes.
export function checkFixedSteps(sampler, steps, taken) {
  if (steps !== null && steps !== taken) {
    throw new RangeError(`steps ${steps}: sampler ${sampler} takes ${taken}; take a sampler with any number of steps`);
  }
}
