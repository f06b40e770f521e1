// ONNX Runtime, and the networks that it runs.
import { EngineError } from "../errors.js";
import { Downloads, megabytes, tooLarge } from "./downloads.js";

const MOST_BYTES = 1_000_000_000; // of a network: its weights are in memory two to three times, of 4 GB for all of it
const MOST_THREADS = 8;

export class Sessions {
  #catalogue;
  #base;
  #device;
  #downloads;
  #ort = null;
  #open = new Map(); // file -> {entry, session}

  // catalogue: models.json; base: its address; device: "cpu" or "gpu"; onLoading: see Downloads
  constructor(catalogue, base, device, onLoading) {
    this.#catalogue = catalogue;
    this.#base = base;
    this.#device = device;
    this.#downloads = new Downloads(base, onLoading);
  }

  // The sessions of some networks; what is not there yet is loaded. Other networks are closed; mel front ends, which
  // are small and for CPUs only, are kept.
  async open(entries, signal) {
    for (const { file, bytes } of entries) {
      if (bytes > MOST_BYTES) {
        throw new EngineError(
          `${file} has ${megabytes(bytes)}; browsers run models of up to ${megabytes(MOST_BYTES)}. Use a smaller model, ` +
            "or a gateway",
          "too-large",
        );
      }
    }
    await this.#close(entries);
    const missing = entries.filter(({ file }) => !this.#open.has(file));
    if (missing.length) {
      const runtime = this.#ort ? [] : [this.#catalogue.runtime[this.#device].binary];
      const loaded = await this.#downloads.all([...runtime, ...missing], signal);
      if (!this.#ort) await this.#start(loaded.shift());
      for (const entry of missing) {
        this.#open.set(entry.file, { entry, session: await this.#session(entry, loaded.shift()) });
      }
    }
    return entries.map(({ file }) => this.#open.get(file).session);
  }

  // Run a network. inputs: name -> [values, shape]; returns the values of an output.
  async run(session, inputs, output) {
    const tensors = Object.entries(inputs).map(([name, [values, shape]]) => [
      name,
      new this.#ort.Tensor("float32", values, shape),
    ]);
    try {
      const answer = await session.run(Object.fromEntries(tensors), [output]);
      const values = await answer[output].getData(true);
      if (!values.every(Number.isFinite)) throw new EngineError("the model made NaN or infinite values", "model-failed");
      return values;
    } catch (error) {
      throw explained(error, "the model");
    }
  }

  async #start(binary) {
    const { module } = this.#catalogue.runtime[this.#device];
    const ort = await import(new URL(module.file, this.#base));
    ort.env.wasm.wasmBinary = binary;
    ort.env.wasm.numThreads = threads();
    ort.env.logLevel = "error";
    this.#ort = ort;
  }

  async #session(entry, content) {
    // float64, as in the mel front end, is for CPUs only
    const provider = this.#device === "gpu" && !entry.cpu_only ? "webgpu" : "wasm";
    try {
      return await this.#ort.InferenceSession.create(content, { executionProviders: [provider], enableMemPattern: false });
    } catch (error) {
      throw explained(error, entry.file, entry.bytes);
    }
  }

  async #close(kept) {
    for (const [file, { entry, session }] of this.#open) {
      if (entry.cpu_only || kept.some((wanted) => wanted.file === file)) continue;
      this.#open.delete(file);
      await session.release();
    }
  }
}

// Browsers give threads to pages with the headers Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy only.
export function threads() {
  if (!globalThis.crossOriginIsolated) return 1;
  const cores = navigator.hardwareConcurrency || 1;
  return Math.min(MOST_THREADS, Math.max(Math.min(cores, 4), Math.floor(cores / 2))); // cores may count twice
}

function explained(error, what, bytes) {
  if (error instanceof EngineError || error.name === "AbortError") return error;
  const text = String(error?.message ?? error);
  // an exception of C++ arrives as a number
  const isMemory = typeof error === "number" || /alloc|memory|out of bounds/i.test(text);
  if (isMemory) return tooLarge(what, bytes);
  if (/adapter|webgpu/i.test(text)) return new EngineError(`the GPU cannot be used: ${text}`, "no-gpu");
  return new EngineError(`${what} cannot be run: ${text}`, "model-failed");
}
