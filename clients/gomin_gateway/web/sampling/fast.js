// DiffWave's fast sampling: six large steps; see gomin_client/sampling/fast.py.
import { DDPM, checkFixedSteps } from "./ddpm.js";
import { NoiseSchedule } from "./schedules.js";

const FAST_BETAS = [0.0001, 0.001, 0.01, 0.05, 0.2, 0.5]; // Kong et al. 2020, appendix C

export class FastDDPM extends DDPM {
  // Throws a RangeError if the last level has more noise than the denoiser was trained with.
  constructor(trained) {
    const schedule = NoiseSchedule.fromBetas(FAST_BETAS);
    const levels = Array.from(trained.alphasCumprod, Math.sqrt);
    const own = Array.from(schedule.alphasCumprod, Math.sqrt);
    if (own.at(-1) < levels.at(-1)) {
      const [begins, has] = [own, levels].map((found) => (found.at(-1) ** 2).toFixed(3));
      throw new RangeError(
        `sampler fast begins with more noise (ᾱ = ${begins}) than the model's last timestep has (ᾱ = ${has}): ` +
        "take another sampler",
      );
    }
    super(schedule, own.map((level) => timestepOf(level, levels)));
  }
}

// The fractional timestep of a level of noise, by linear interpolation between levels, which fall; at least 0.
function timestepOf(level, levels) {
  if (level >= levels[0]) return 0;
  let t = levels.length - 1;
  while (levels[t - 1] <= level) t--;
  return (-1 / (levels[t - 1] - levels[t])) * (level - levels[t]) + t;
}

// The chain over DiffWave's betas. Throws a RangeError for another number of steps; or see `FastDDPM`.
export function make(schedule, { steps = null } = {}) {
  checkFixedSteps("fast", steps, FAST_BETAS.length);
  return new FastDDPM(schedule);
}
