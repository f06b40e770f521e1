// The form of the model and its sampling chain, and the link that has its values.

const NAMES = ["model", "sampler", "steps", "schedule", "eta", "seed"];

export class Settings {
  #models = [];
  #fields = Object.fromEntries(NAMES.map((name) => [name, document.getElementById(name)]));
  #chain = document.getElementById("chain");
  #eachStep = document.getElementById("each-step");
  #canStep;

  // canStep: whether the engine can show each step of a chain
  constructor(canStep) {
    this.#canStep = canStep;
    this.#fields.model.addEventListener("change", () => this.#showModel());
    this.#fields.sampler.addEventListener("change", () => this.#showSampler());
  }

  // Offer these models. Returns a sentence about each value of the link that is not offered.
  offer(models, fragment) {
    this.#models = models;
    const { model, sampler, schedule } = this.#fields;
    fill(model, models.map(({ name }) => [name, name]));
    model.disabled = !models.length;
    // the fastest kind first, if it is there
    model.value = (models.find(({ kind }) => kind === "gan") ?? models[0])?.name ?? "";
    const given = new URLSearchParams(fragment);
    const refused = [];
    const choose = (select, name) => {
      if (!given.has(name)) return;
      const known = [...select.options].some(({ value }) => value === given.get(name));
      if (known) select.value = given.get(name);
      else refused.push(`The link asks for ${name} “${given.get(name)}”, which is not offered here.`);
    };
    choose(model, "model");
    this.#showModel();
    if (this.model?.sampling) {
      choose(sampler, "sampler");
      choose(schedule, "schedule");
      for (const name of ["steps", "eta", "seed"]) this.#fields[name].value = given.get(name) ?? "";
      this.#showSampler();
    }
    return refused;
  }

  // The model that is chosen.
  get model() {
    return this.#models.find(({ name }) => name === this.#fields.model.value);
  }

  // The parameters of a request; empty ones are the model's own.
  get values() {
    const names = this.model?.sampling ? NAMES : ["model"];
    return Object.fromEntries(names.map((name) => [name, this.#fields[name].value.trim()]));
  }

  // Whether each step of the chain is to be shown.
  get showsSteps() {
    return this.#canStep && Boolean(this.model?.sends_steps) && this.#eachStep.checked;
  }

  get fragment() {
    return new URLSearchParams(Object.entries(this.values).filter(([, value]) => value !== "")).toString();
  }

  #showModel() {
    const { model } = this;
    const note = document.getElementById("model-note");
    this.#chain.hidden = !model?.sampling;
    if (!model) {
      note.textContent = "No models are offered.";
      return;
    }
    document.getElementById("bands").textContent = model.mel.n_mels;
    document.getElementById("rate").textContent = model.sample_rate / 1000;
    const version = Math.max(...model.versions.map((found) => found.version));
    note.textContent = `${model.summary}, version ${version}`;
    document.getElementById("each-step-field").hidden = !(this.#canStep && model.sends_steps);
    if (!model.sampling) return;
    const { samplers, schedules, default: usual } = model.sampling;
    fill(this.#fields.sampler, [["", `${usual.sampler} (default)`], ...samplers.map(({ name }) => [name, name])]);
    fill(this.#fields.schedule, [["", `${usual.schedule} (default)`], ...schedules.map((name) => [name, name])]);
    this.#showSampler();
  }

  #showSampler() {
    const { samplers, default: usual } = this.model.sampling;
    const chosen = this.#fields.sampler.value;
    const name = chosen || usual.sampler;
    document.getElementById("sampler-note").textContent = samplers.find((found) => found.name === name)?.summary ?? "";
    const isUsual = name === usual.sampler;
    this.#fields.steps.placeholder = isUsual ? (usual.steps ?? "default") : "default";
    this.#fields.eta.placeholder = isUsual ? (usual.eta ?? "default") : "default";
  }
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
}
