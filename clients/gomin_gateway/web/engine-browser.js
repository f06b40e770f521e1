// An engine that computes in this browser, with the models of the page's own folder: see engine-gateway.js for its
// methods. It works in a worker, browser/worker.js.
import { EngineError } from "./errors.js";
import { decode } from "./browser/decoding.js";
import { threads } from "./browser/sessions.js";

const CATALOGUE = new URL("models.json", import.meta.url);

export class BrowserEngine {
  kind = "browser";
  key = "";
  onLoading = () => {};
  #catalogue = null;
  #worker = null;
  #device = "cpu";
  #tasks = new Map(); // id -> {resolve, reject, onPart}
  #lastId = 0;
  #original = {}; // of the last file: {file, rate, samples}

  async models() {
    let response;
    try {
      response = await fetch(CATALOGUE, { cache: "no-cache" });
    } catch {
      throw new EngineError("the host of this page cannot be reached", "unreachable");
    }
    if (!response.ok) throw new EngineError(`models.json cannot be loaded: status ${response.status}`, "unreachable");
    this.#catalogue = await response.json();
    return this.#catalogue.models;
  }

  // What can compute: "cpu", and "gpu" if the folder has what that needs and the browser offers one.
  get devices() {
    return this.#catalogue?.runtime.gpu && navigator.gpu ? ["cpu", "gpu"] : ["cpu"];
  }

  get device() { return this.#device; }

  set device(device) {
    if (device !== this.#device) this.#end();
    this.#device = device;
  }

  get description() {
    const count = threads();
    const why = globalThis.crossOriginIsolated ? "" : "; more threads need two headers from the host";
    return `Models run in this browser, on ${count === 1 ? "one thread" : `${count} threads`}${why}.`;
  }

  async original(file, model, signal) {
    const { sample_rate: rate } = model;
    if (this.#original.file !== file || this.#original.rate !== rate) {
      const decoded = await decode(file);
      signal.throwIfAborted();
      const given = { channels: decoded.channels, rate: decoded.rate, target: rate };
      const transferred = decoded.channels.map(({ buffer }) => buffer);
      this.#original = { file, rate, samples: await this.#ask("original", given, signal, { transferred }) };
    }
    return { samples: this.#original.samples, rate };
  }

  async reconstruct(file, settings, model, onSamples, signal) {
    const { samples, rate } = await this.original(file, model, signal);
    const made = new Float32Array(samples.length);
    let at = 0;
    const onPart = (part) => {
      made.set(part, at);
      at += part.length;
      onSamples(part);
    };
    const { seed, sampling } = await this.#ask("reconstruct", { samples, settings, model }, signal, { onPart });
    const version = Math.max(...model.versions.map((found) => found.version));
    return { samples: made, rate, model: `${model.name} ${version}`, seed, sampling };
  }

  mel(samples, rate, model, signal) {
    return this.#ask("mel", { samples, model }, signal);
  }

  // The answer of the worker to a task.
  #ask(task, given, signal, { transferred = [], onPart = () => {} } = {}) {
    const id = ++this.#lastId;
    this.#worker ??= this.#start();
    return new Promise((resolve, reject) => {
      this.#tasks.set(id, { resolve, reject, onPart });
      signal.addEventListener("abort", () => this.#cancel(id), { once: true });
      this.#worker.postMessage({ id, task, ...given }, transferred);
    });
  }

  // The worker ends the task at its next window.
  #cancel(id) {
    const task = this.#tasks.get(id);
    if (!task) return;
    this.#tasks.delete(id);
    this.#worker?.postMessage({ cancel: id });
    task.reject(new DOMException("cancelled", "AbortError"));
  }

  #start() {
    const worker = new Worker(new URL("browser/worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => this.#answered(data);
    worker.onerror = (event) => this.#end(event.message);
    worker.postMessage({ catalogue: this.#catalogue, base: CATALOGUE.href, device: this.#device });
    return worker;
  }

  #answered({ id, loading, part, result, error }) {
    const task = this.#tasks.get(id);
    if (!task) return; // cancelled
    if (loading) this.onLoading(loading);
    else if (part) task.onPart(part);
    else {
      this.#tasks.delete(id);
      if (!error) task.resolve(result);
      else {
        task.reject(new EngineError(error.isKnown ? error.message : `internal error: ${error.message}`, error.kind));
        this.#end(); // a runtime without memory does not recover
      }
    }
  }

  // Forget the worker; the next task starts another.
  #end(reason = "") {
    this.#worker?.terminate();
    this.#worker = null;
    for (const { reject } of this.#tasks.values()) {
      reject(new EngineError(`the computation was broken off${reason && `: ${reason}`}`, "broken-off"));
    }
    this.#tasks.clear();
  }
}
