// Computes beside the page, which stays responsive. One task at a time; a message {cancel: id} ends a task.
import { EngineError } from "../errors.js";
import { resample } from "./resampling.js";
import { Sessions } from "./sessions.js";
import { breathe, columns, reconstruct, wholeMel } from "./vocoding.js";
import { resolveSettings, runChain } from "../sampling/chain.js";
import { Tiling, tiledDenoiser } from "../sampling/tiling.js";

let sessions = null;
let last = Promise.resolve();
const running = new Map(); // id -> AbortController
let current = 0; // id of the task that is loading

self.onmessage = ({ data }) => {
  if (data.cancel) {
    running.get(data.cancel)?.abort();
  } else if (data.catalogue) {
    const { catalogue, base, device } = data;
    sessions = new Sessions(catalogue, base, device, (loading) => self.postMessage({ id: current, loading }));
  } else {
    running.set(data.id, new AbortController());
    last = last.then(() => answer(data));
  }
};

const TASKS = { original, mel, reconstruct: reconstructed };

async function answer({ id, task, ...given }) {
  const { signal } = running.get(id);
  current = id;
  try {
    signal.throwIfAborted();
    const [result, transferred] = await TASKS[task](given, signal, (part) => {
      self.postMessage({ id, part }, [part.buffer]);
    });
    self.postMessage({ id, result }, transferred);
  } catch (error) {
    const { name, message, kind = "" } = error;
    self.postMessage({ id, error: { name, message, kind, isKnown: error instanceof EngineError || error instanceof RangeError } });
  } finally {
    running.delete(id);
  }
}

function original({ channels, rate, target }) {
  const samples = resample(mono(channels), rate, target);
  return [samples, [samples.buffer]];
}

// The mean of all channels, as gomin_client's files/audio.py mixes them.
function mono(channels) {
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
}

async function mel({ samples, model }, signal) {
  const [frontEnd] = await sessions.open([model.front_end], signal);
  const found = await wholeMel(samples, model, analyzer(frontEnd), signal);
  return [found, [found.values.buffer]];
}

async function reconstructed({ samples, model, settings }, signal, onPart) {
  const chain = model.sampling && chainOf(model, settings); // before anything is loaded: its settings may be wrong
  const [frontEnd, network] = await sessions.open([model.front_end, model.network], signal);
  const vocode = chain ? sampler(network, model, chain, signal) : vocoder(network, model);
  const halo = model.halo_frames * (chain ? chain.sampling.steps : 1); // every step of a chain adds that of one
  for await (const part of reconstruct(samples, model, halo, analyzer(frontEnd), vocode, signal)) onPart(part);
  return [{ seed: chain ? String(chain.seed) : "", sampling: chain ? String(chain.sampling) : "" }, []];
}

function chainOf(model, { sampler, steps, schedule, eta, seed = "" }) {
  const sampling = resolveSettings({ sampler, steps, schedule, eta }, model.sampling.default, model.num_diffusion_steps);
  return { sampling, seed: seedOf(seed) };
}

const MOST_SEED = 2n ** 64n - 1n;

// A seed as a BigInt; a random one, short enough to be typed again, if none is given.
function seedOf(text) {
  if (text === "") return BigInt(crypto.getRandomValues(new Uint32Array(1))[0]);
  const seed = /^[0-9]{1,20}$/.test(text) ? BigInt(text) : -1n;
  if (seed < 0n || seed > MOST_SEED) throw new RangeError(`seed ${text}: expected a whole number, 0 … 2**64 - 1`);
  return seed;
}

function vocoder(network, model) {
  const bands = model.mel.n_mels;
  return (values, { length }) => sessions.run(network, { mel: [values, [1, bands, length]] }, "audio");
}

// Runs the chain for a window: noise depends on the place of each sample in the whole, so windows fit together.
function sampler(denoiser, model, { sampling, seed }, signal) {
  const { hop_length: hop, num_diffusion_steps: numDiffusionSteps, mel: { n_mels: bands } } = model;
  const tiling = new Tiling(hop, model.halo_frames, model.tile_frames);
  return (mel, { first, length }) => {
    const denoiseTile = async (part, timestep, from, frames) => {
      await breathe(signal);
      const tile = frames === length ? mel : columns(mel, bands, length, from, from + frames);
      const inputs = {
        signal: [part.slice(), [1, 1, part.length]],
        timestep: [Float32Array.of(timestep), [1, 1]],
        mel: [tile, [1, bands, frames]],
      };
      return sessions.run(denoiser, inputs, "noise");
    };
    const denoise = tiledDenoiser(tiling, length, denoiseTile);
    const settings = sampling;
    return runChain({
      settings, numDiffusionSteps, denoise, length: length * hop, seed, firstSample: first * hop, signal,
    });
  };
}

function analyzer(session) {
  return (part) => sessions.run(session, { audio: [part, [1, 1, part.length]] }, "mel");
}
