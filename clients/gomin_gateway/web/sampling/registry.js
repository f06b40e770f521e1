// Samplers by name, as in gomin_client/sampling/registry.py. A page without a server offers only these.
import { make as makeDDIM } from "./ddim.js";
import { make as makeDDPM } from "./ddpm.js";
import { make as makeDPMSolver } from "./dpm-solver.js";
import { make as makeFast } from "./fast.js";
import { general, oneOf, quoted } from "./text.js";

export { SCHEDULES } from "./schedules.js";
export const DEFAULT_SAMPLER = "ddpm"; // GOMIN's released chain
export const DEFAULT_SCHEDULE = "linear";

export const SAMPLERS = new Map([
  ["ddpm", { summary: "all timesteps, as released", make: makeDDPM, hasEta: false }],
  ["fast", { summary: "6 large steps", make: makeFast, hasEta: false }],
  ["ddim", { summary: "any number of steps", make: makeDDIM, hasEta: true }],
  ["dpm++", { summary: "any number of steps, second order", make: makeDPMSolver, hasEta: false }],
]);

// A sampler by its name; steps and eta may be null for the sampler's own. Throws a RangeError for an unknown name, or
// for parameters that the sampler does not take.
export function makeSampler(name, schedule, steps = null, eta = null) {
  if (!SAMPLERS.has(name)) throw new RangeError(`sampler ${quoted(name)}: expected ${oneOf(SAMPLERS.keys())}`);
  const { make, hasEta } = SAMPLERS.get(name);
  if (eta === null) return make(schedule, steps);
  if (!hasEta) {
    const others = [...SAMPLERS].filter(([, other]) => other.hasEta).map(([other]) => other);
    throw new RangeError(`eta ${general(eta)}: only sampler ${oneOf(others)} has an eta, ${name} has none`);
  }
  return make(schedule, steps, eta);
}
