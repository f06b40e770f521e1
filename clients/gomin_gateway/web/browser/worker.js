// Computes beside the page, which stays responsive. One task at a time; a message {cancel: id} ends a task.
import { EngineError } from "../errors.js";
import { resample } from "./resampling.js";
import { Sessions } from "./sessions.js";
import { reconstruct, wholeMel } from "./vocoding.js";

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

async function reconstructed({ samples, model }, signal, onPart) {
  const [frontEnd, network] = await sessions.open([model.front_end, model.network], signal);
  const bands = model.mel.n_mels;
  const vocode = (values, { length }) => sessions.run(network, { mel: [values, [1, bands, length]] }, "audio");
  const parts = reconstruct(samples, model, model.halo_frames, analyzer(frontEnd), vocode, signal);
  for await (const part of parts) onPart(part);
  return [{ seed: "", sampling: "" }, []];
}

function analyzer(session) {
  return (part) => sessions.run(session, { audio: [part, [1, 1, part.length]] }, "mel");
}
