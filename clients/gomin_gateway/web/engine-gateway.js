// The engine that a page talks to: here, the gateway that the page comes from. Another engine has the same methods:
//
//   models()                          -> [model], as /v1/models has them
//   original(file, model, signal)     -> {samples, rate}: mono Float32Array at the model's rate
//   reconstruct(file, settings, model, onSamples, signal) -> {samples, rate, model, seed, sampling}; calls
//                                     onSamples(part) while it is being computed
//   reconstructSteps(file, settings, model, onStep, signal, keep) -> {..., step, steps}; calls onStep({step, steps,
//                                     samples}) after each step of a chain. When the signal `keep` is aborted, the
//                                     chain ends early, with its latest step as the result; may be missing
//   formats                           -> [format] that `encode` writes, "wav" first; may be missing
//   encode(samples, rate, format, model) -> Blob, an audio file of another format than WAV
//   mel(samples, rate, model, signal) -> {values, bands, frames}: Float32Array, bands x frames, 0 to 1
//
// and the properties
//
//   kind                              "gateway" or "browser": which parts of the page are shown
//   devices, device                   what can compute, and what does
//   description                       a sentence about where models run
//   onLoading                         is called with {loaded, total} bytes while a model is loaded into the page
//   key                               the API key
//
// `settings` are {model, sampler, steps, schedule, eta, seed}; empty ones are left out. Methods throw EngineError.

import { EngineError } from "./errors.js";
import { parseNpy } from "./npy.js";
import { encodeWav, parseWav } from "./wav.js";

const KEY = "gomin-key";

export class GatewayEngine {
  kind = "gateway";
  devices = ["server"];
  device = "server";
  description = "";
  onLoading = () => {};
  formats = ["wav", "flac", "mp3", "ogg"];

  get key() {
    return sessionStorage.getItem(KEY) ?? "";
  }

  set key(value) {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  }

  async models() {
    const response = await this.#ask("v1/models");
    return (await read(response, "json")).models;
  }

  async original(file, model, signal) {
    const query = new URLSearchParams({ model: model.name, stream: "1", format: "raw", subtype: "float" });
    const response = await this.#ask(`v1/resample?${query}`, file, signal);
    return { samples: await readSamples(response), rate: model.sample_rate };
  }

  async reconstruct(file, settings, model, onSamples, signal) {
    const given = Object.entries(settings).filter(([, value]) => value !== "");
    const query = new URLSearchParams([...given, ["stream", "1"], ["format", "raw"], ["subtype", "float"]]);
    const response = await this.#ask(`v1/reconstruct?${query}`, file, signal);
    return { samples: await readSamples(response, onSamples), rate: model.sample_rate, ...madeBy(response) };
  }

  async reconstructSteps(file, settings, model, onStep, signal, keep) {
    const given = Object.entries(settings).filter(([, value]) => value !== "");
    const query = new URLSearchParams([...given, ["format", "wav"], ["subtype", "float"]]);
    const ending = new AbortController();
    for (const either of [signal, keep]) either.addEventListener("abort", () => ending.abort(), { once: true });
    const response = await this.#ask(`v1/reconstruct/steps?${query}`, file, ending.signal);
    let latest = null;
    try {
      for await (const line of linesOf(response)) {
        const { step, steps, audio } = JSON.parse(line);
        const [samples] = parseWav(Uint8Array.from(atob(audio), (letter) => letter.charCodeAt(0))).channels;
        latest = { step, steps, samples };
        onStep(latest);
      }
    } catch (error) {
      if (!(latest && keep.aborted && !signal.aborted)) throw error;
    }
    if (!latest || (latest.step < latest.steps && !keep.aborted)) throw brokenOff(new Error("too few steps"));
    return { ...latest, rate: model.sample_rate, ...madeBy(response) };
  }

  async mel(samples, rate, model, signal) {
    const query = new URLSearchParams({ model: model.name });
    const response = await this.#ask(`v1/analyze?${query}`, encodeWav(samples, rate), signal);
    const { shape, values } = parseNpy(await read(response, "arrayBuffer"));
    const [bands, frames] = shape.slice(-2);
    return { bands, frames, values };
  }

  async encode(samples, rate, format, model) {
    // the samples have the model's rate: nothing is resampled, only encoded
    const query = new URLSearchParams({ model: model.name, format, ...(format === "flac" && { subtype: "24" }) });
    return read(await this.#ask(`v1/resample?${query}`, encodeWav(samples, rate)), "blob");
  }

  async #ask(path, body, signal) {
    const headers = this.key ? { Authorization: `Bearer ${this.key}` } : {};
    let response;
    try {
      response = await fetch(path, { method: body ? "POST" : "GET", body, headers, signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new EngineError("the gateway cannot be reached; see whether it still runs", "unreachable");
    }
    if (!response.ok) throw await problemOf(response);
    return response;
  }
}

// What the headers of an answer say about the audio.
function madeBy({ headers }) {
  const of = (name) => headers.get(name) ?? "";
  return { model: of("Gomin-Model"), seed: of("Gomin-Seed"), sampling: of("Gomin-Sampling") };
}

async function problemOf(response) {
  try {
    const problem = await response.json();
    return new EngineError(problem.detail, problem.type.replace("urn:gomin:problem:", ""));
  } catch {
    return new EngineError(`the gateway answered with status ${response.status}`);
  }
}

// The whole body of a response. kind: "json", "arrayBuffer" or "blob"
async function read(response, kind) {
  try {
    return await response[kind]();
  } catch (error) {
    throw brokenOff(error);
  }
}

function brokenOff(error) {
  if (error.name === "AbortError") return error;
  if (error.name === "SyntaxError") return new EngineError("this is not the answer of a gateway: no JSON", "unreachable");
  return new EngineError("the answer was broken off; the log of the gateway has the reason", "broken-off");
}

// The lines of a response, each as soon as it is complete.
async function* linesOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let found;
    try {
      found = await reader.read();
    } catch (error) {
      throw brokenOff(error);
    }
    if (found.done) return;
    const lines = (rest + found.value).split("\n");
    rest = lines.pop();
    yield* lines;
  }
}

// Little-endian float32 samples of a response, which may be split anywhere.
async function readSamples(response, onSamples = () => {}) {
  const reader = response.body.getReader();
  const parts = [];
  let rest = new Uint8Array(0);
  let length = 0;
  for (;;) {
    let found;
    try {
      found = await reader.read();
    } catch (error) {
      throw brokenOff(error);
    }
    if (found.done) break;
    const bytes = new Uint8Array(rest.length + found.value.length);
    bytes.set(rest);
    bytes.set(found.value, rest.length);
    const whole = bytes.length - (bytes.length % 4);
    rest = bytes.slice(whole);
    const part = new Float32Array(bytes.buffer, 0, whole / 4);
    if (!part.length) continue;
    parts.push(part);
    length += part.length;
    onSamples(part);
  }
  return joined(parts, length);
}

function joined(parts, length) {
  const samples = new Float32Array(length);
  let at = 0;
  for (const part of parts) {
    samples.set(part, at);
    at += part.length;
  }
  return samples;
}
