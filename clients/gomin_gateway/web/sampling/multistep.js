// What the multistep solvers share; see gomin_client/sampling/multistep.py.
import { halfLogSnr } from "./base.js";
import { solverTimesteps } from "./spacing.js";

export class MultistepSolver {
  // Throws a RangeError; see `solverTimesteps`.
  constructor(schedule, steps, spacing = "trailing") {
    this.schedule = schedule;
    this.timesteps = solverTimesteps(steps, schedule, spacing);
    this.alphasCumprod = this.timesteps.map((timestep) => schedule.alphasCumprod[timestep]);
    this.times = this.alphasCumprod.map(halfLogSnr);
  }
}
