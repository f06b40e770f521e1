// The sampler settings of a request; see gomin_client/sampling/settings.py.
import { DEFAULT_SAMPLER, DEFAULT_SCHEDULE, makeSampler } from "./registry.js";
import { NoiseSchedule } from "./schedules.js";
import { float, oneOf, quoted } from "./text.js";

const isText = (value) => typeof value === "string";
const EXPECTED = {
  sampler: ["a name", isText],
  steps: ["a whole number", Number.isInteger],
  schedule: ["a name", isText],
  eta: ["a number", (value) => typeof value === "number"],
  timesteps: ["whole numbers with commas between them", isText],
};
const TIMESTEPS = /^ *[0-9]{1,9}( *, *[0-9]{1,9})* *$/;
const WHOLE = /^[+-]?\d+$/;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

export class SamplerSettings {
  // sampler, schedule: names; steps: a whole number; eta: a number; timesteps: "49,30,12,0"; null: not chosen. Throws a
  // RangeError for a value of the wrong type. Names and ranges are checked by `make`.
  constructor({ sampler = null, steps = null, schedule = null, eta = null, timesteps = null } = {}) {
    Object.assign(this, { sampler, steps, schedule, eta, timesteps });
    for (const [name, value] of Object.entries(this.toParameters())) {
      const [kind, isKind] = EXPECTED[name];
      if (!isKind(value)) throw new RangeError(`${name} ${quoted(value)}: expected ${kind}`);
    }
    if (timesteps !== null) {
      if (!TIMESTEPS.test(timesteps)) {
        throw new RangeError(`timesteps ${quoted(timesteps)}: expected ${EXPECTED.timesteps[0]}`);
      }
      this.timesteps = timesteps.replaceAll(" ", "");
    }
    Object.freeze(this);
  }

  // The settings in request parameters. Throws a RangeError for an unknown one, or a value of the wrong type.
  static fromParameters(given) {
    for (const [name, value] of Object.entries(given)) {
      if (!Object.hasOwn(EXPECTED, name)) {
        throw new RangeError(`unknown request parameter ${quoted(name)}: expected ${oneOf(Object.keys(EXPECTED))}`);
      }
      if (value === null) throw new RangeError(`${name} ${quoted(value)}: expected ${EXPECTED[name][0]}`);
    }
    return new SamplerSettings(given);
  }

  // The settings in the fields of a form: text, empty if not chosen. Throws a RangeError; see `fromParameters`.
  static fromText(given) {
    const chosen = Object.entries(given).filter(([, text]) => text !== "");
    return SamplerSettings.fromParameters(Object.fromEntries(chosen.map(([name, text]) => {
      const pattern = { steps: WHOLE, eta: NUMBER }[name];
      return [name, pattern?.test(text) ? Number(text) : text];
    })));
  }

  // These settings, with values of `usual` for the settings that are not chosen. Steps, eta and timesteps belong to a
  // sampler. If the samplers differ, they are not taken from `usual`. Of steps and timesteps, a choice of one replaces
  // both.
  over(usual) {
    const differs = this.sampler !== null && this.sampler !== (usual.sampler ?? DEFAULT_SAMPLER);
    const isNew = differs || this.steps !== null || this.timesteps !== null;
    return new SamplerSettings({
      ...usual, ...(isNew && { steps: null, timesteps: null }), ...(differs && { eta: null }), ...this.toParameters(),
    });
  }

  // The sampler for a model with this number of timesteps. Throws a RangeError; see `makeSampler` and
  // `NoiseSchedule.named`.
  make(numDiffusionSteps) {
    const schedule = NoiseSchedule.named(this.schedule ?? DEFAULT_SCHEDULE, numDiffusionSteps);
    const timesteps = this.timesteps === null ? null : this.timesteps.split(",").map(Number);
    return makeSampler(this.sampler ?? DEFAULT_SAMPLER, schedule, { steps: this.steps, eta: this.eta, timesteps });
  }

  // These settings with sampler, steps and schedule filled in; the others are unchanged. Throws a RangeError; see
  // `make`.
  resolved(numDiffusionSteps) {
    return new SamplerSettings({
      ...this,
      sampler: this.sampler ?? DEFAULT_SAMPLER,
      steps: this.make(numDiffusionSteps).timesteps.length,
      schedule: this.schedule ?? DEFAULT_SCHEDULE,
    });
  }

  // The chosen settings as request parameters.
  toParameters() {
    return Object.fromEntries(Object.entries(this).filter(([, value]) => value !== null));
  }

  // As the gateway's header Gomin-Sampling has them: "sampler=ddim, steps=10, schedule=linear, eta=0.5"
  toString() {
    const texts = { ...this.toParameters(), ...(this.eta !== null && { eta: float(this.eta) }) };
    return Object.entries(texts).map(([name, value]) => `${name}=${value}`).join(", ");
  }
}
