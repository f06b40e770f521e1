// Samplers by name, as in gomin_client/sampling/registry.py. A page without a server offers only these.
import { make as makeDDIM } from "./ddim.js";
import { make as makeDDPM } from "./ddpm.js";
import { make as makeDPMSolver } from "./dpm-solver.js";
import { make as makeSDEDPMSolver } from "./dpm-solver-sde.js";
import { make as makeFast } from "./fast.js";
import { make as makeUniPC } from "./unipc.js";
import { general, oneOf, quoted } from "./text.js";

export { SCHEDULES } from "./schedules.js";
export const DEFAULT_SAMPLER = "ddpm"; // GOMIN's released chain
export const DEFAULT_SCHEDULE = "linear";

export const SAMPLERS = new Map([
  ["ddpm", { summary: "all timesteps, as released", make: makeDDPM, options: [] }],
  ["fast", { summary: "6 large steps", make: makeFast, options: [] }],
  ["ddim", { summary: "any number of steps", make: makeDDIM, options: ["eta", "timesteps"] }],
  ["dpm++", { summary: "any number of steps, second order", make: makeDPMSolver, options: ["timesteps"] }],
  ["dpm++sde", { summary: "as dpm++, with fresh noise", make: makeSDEDPMSolver, options: ["timesteps"] }],
  ["unipc", {
    summary: "any number of steps, second order with correction", make: makeUniPC, options: ["timesteps"],
  }],
]);

// A sampler by its name; steps, eta and timesteps, an array, may be null for the sampler's own. Throws a RangeError for
// an unknown name, or for parameters that the sampler does not take.
export function makeSampler(name, schedule, { steps = null, eta = null, timesteps = null } = {}) {
  if (!SAMPLERS.has(name)) throw new RangeError(`sampler ${quoted(name)}: expected ${oneOf(SAMPLERS.keys())}`);
  const { make, options } = SAMPLERS.get(name);
  if (eta !== null && !options.includes("eta")) {
    throw new RangeError(`eta ${general(eta)}: only sampler ${oneOf(thatTake("eta"))} has an eta, ${name} has none`);
  }
  if (timesteps !== null) {
    if (!options.includes("timesteps")) {
      throw new RangeError(`timesteps: sampler ${name} takes none; take ${oneOf(thatTake("timesteps"))}`);
    }
    if (steps !== null && steps !== timesteps.length) {
      throw new RangeError(`steps ${steps}: there are ${timesteps.length} timesteps; leave out one of the two`);
    }
  }
  return make(schedule, { steps, eta, timesteps });
}

function thatTake(option) {
  return [...SAMPLERS].filter(([, sampler]) => sampler.options.includes(option)).map(([name]) => name);
}
