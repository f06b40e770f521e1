// A chain that is shown step by step: what a step predicts can be heard and seen, and kept before the chain ends.
import { EngineError } from "./errors.js";

const find = (id) => document.getElementById(id);

export class Stepping {
  #engine;
  #onStep;
  #onMel;
  #keeping = null; // the AbortController that ends the chain early
  #next = null; // samples of the latest step, while the spectrogram of another one is computed
  #drawing = null; // a promise while spectrograms are computed

  // onStep({step, steps, samples}); onMel(mel): of what a step predicts, as often as the engine can compute it
  constructor(engine, { onStep, onMel }) {
    this.#engine = engine;
    this.#onStep = onStep;
    this.#onMel = onMel;
    find("keep").addEventListener("click", () => this.#keeping?.abort());
  }

  // The result, of the last step or of the one that was kept; see `reconstructSteps` of the engine.
  async run(file, settings, model, signal) {
    this.#keeping = new AbortController();
    const show = (found) => {
      find("keep").hidden = found.step === found.steps;
      this.#onStep(found);
      this.#next = found.samples;
      this.#drawing ??= this.#draw(model, signal).finally(() => { this.#drawing = null; });
    };
    try {
      const made = await this.#engine.reconstructSteps(file, settings, model, show, signal, this.#keeping.signal);
      this.#next = null;
      await this.#drawing;
      return made;
    } finally {
      find("keep").hidden = true;
    }
  }

  // Spectrograms, one after the other; steps that come meanwhile are passed over, except for the latest.
  async #draw(model, signal) {
    while (this.#next) {
      const samples = this.#next;
      this.#next = null;
      try {
        this.#onMel(await this.#engine.mel(samples, model.sample_rate, model, signal));
      } catch (error) {
        // cancelled, or a busy gateway: a picture is missing, and the result is not affected
        if (!(error instanceof EngineError || error.name === "AbortError")) throw error;
      }
    }
  }
}
