// From samples to a mel and to audio, in blocks and windows, as gomin_client does it.
import { EngineError } from "../errors.js";
import { LOUDEST } from "./decoding.js";
import { Windower, chooseSize } from "./windows.js";

const FRONT_END_FRAMES = 256; // of a mel that are computed at a time
const SOON_FRAMES = 16; // of a first window, besides its halo, so that audio begins soon

// Lets messages in, such as one that cancels: ONNX Runtime answers without a turn of the event loop.
export function breathe(signal) {
  return new Promise((resolve, reject) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    port2.postMessage(null);
  });
}

// Yields the mel of a waveform in blocks: {first, frames, values}, bands x frames each. analyze(samples) -> values is
// the front end, which pads with zeros; frames that would see them in the middle of the waveform are cut off.
export async function* melBlocks(samples, model, analyze, signal) {
  const { hop_length: hop, mel } = model;
  const reach = Math.ceil(mel.n_fft / 2 / hop); // frames that a frame overlaps with, to either side
  const total = 1 + Math.floor(samples.length / hop);
  for (let first = 0; first < total; first += FRONT_END_FRAMES) {
    await breathe(signal);
    const end = Math.min(total, first + FRONT_END_FRAMES);
    const origin = Math.max(0, first - reach);
    const part = samples.slice(origin * hop, Math.min(samples.length, (end - 1 + reach) * hop));
    const made = 1 + Math.floor(part.length / hop);
    yield { first, frames: end - first, values: columns(await analyze(part), mel.n_mels, made, first - origin, end - origin) };
  }
}

// The whole mel of a waveform: bands x frames.
export async function wholeMel(samples, model, analyze, signal) {
  const mel = new GrowingMel(samples, model);
  for await (const block of melBlocks(samples, model, analyze, signal)) mel.add(block);
  return { values: mel.values, bands: mel.bands, frames: mel.frames };
}

// Yields the audio of a waveform's mel, in order, while it is computed; as many samples in total as the waveform has.
// vocode(mel, window) -> samples, hop_length for each frame; chainHalo: frames to either side that a sample depends on.
export async function* reconstruct(samples, model, chainHalo, analyze, vocode, signal) {
  const hop = model.hop_length;
  const size = chooseSize(chainHalo, model.limits.max_frames);
  const windower = new Windower(size, chainHalo, Math.min(chainHalo + SOON_FRAMES, size));
  const mel = new GrowingMel(samples, model);
  let left = samples.length;
  const made = async ({ first, length, skip, keep }) => {
    await breathe(signal);
    const audio = await vocode(columns(mel.values, mel.bands, mel.frames, first, first + length), { first, length });
    const kept = audio.slice(skip * hop, Math.min((skip + keep) * hop, skip * hop + left));
    if (kept.some((sample) => Math.abs(sample) > LOUDEST)) {
      throw new EngineError("the model made samples far beyond full scale", "model-failed");
    }
    left -= kept.length;
    return kept;
  };
  for await (const block of melBlocks(samples, model, analyze, signal)) {
    mel.add(block);
    for (const window of windower.feed(block.frames)) yield await made(window);
  }
  for (const window of windower.finish()) yield await made(window);
}

class GrowingMel {
  constructor(samples, { hop_length: hop, mel }) {
    this.bands = mel.n_mels;
    this.frames = 1 + Math.floor(samples.length / hop);
    this.values = new Float32Array(this.bands * this.frames);
  }

  add({ first, frames, values }) {
    for (let band = 0; band < this.bands; band++) {
      this.values.set(values.subarray(band * frames, (band + 1) * frames), band * this.frames + first);
    }
  }
}

// Frames first … end - 1 of a matrix of bands x frames.
export function columns(values, bands, frames, first, end) {
  const result = new Float32Array(bands * (end - first));
  for (let band = 0; band < bands; band++) {
    result.set(values.subarray(band * frames + first, band * frames + end), band * (end - first));
  }
  return result;
}
