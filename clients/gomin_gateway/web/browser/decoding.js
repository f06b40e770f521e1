// An audio file -> the samples that are stored in it, at its own sample rate.
//
// Browsers decode many formats, but convert the result to a rate of their choice, and 16-bit integers to floats in ways
// of their own. So WAV files are read here, other files are decoded at the rate that their header names, and the integers
// of FLAC files are restored.
import { EngineError } from "../errors.js";
import { streamInfo } from "./headers.js";
import { parseWav } from "../wav.js";

export const LONGEST_S = 600; // of a recording: its samples, spectrogram and result are held in memory
const USUAL_RATE = 48000; // in Hz, of files whose header is not known; most browsers' decoders have no better one
export const LOUDEST = 8; // as in gomin_client/mel/features.py

// file: a File or Blob. Returns {channels: [Float32Array], rate}.
export async function decode(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const { channels, rate } = parseWav(bytes) ?? (await decodeByBrowser(file.name, bytes));
  const seconds = channels[0].length / rate;
  if (!seconds) throw new EngineError(`${file.name}: contains no samples`, "unreadable-file");
  if (seconds > LONGEST_S) {
    throw new EngineError(`${file.name}: ${Math.ceil(seconds)} s of audio; this page takes up to ${LONGEST_S}`, "too-long");
  }
  for (const samples of channels) refuseExcess(file.name, samples);
  return { channels, rate };
}

async function decodeByBrowser(name, bytes) {
  const { rate = USUAL_RATE, bits } = streamInfo(bytes);
  let decoded;
  try {
    decoded = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes.buffer);
  } catch (error) {
    throw new EngineError(
      `${name}: this browser cannot decode it. It is damaged, no audio file, or of a format that the browser does not ` +
        "have; WAV files always work",
      "unreadable-file",
    );
  }
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, i) => decoded.getChannelData(i));
  if (bits <= 16) channels.forEach(restoreIntegers);
  return { channels, rate: decoded.sampleRate };
}

// Some browsers divide positive 16-bit integers by 32767, some by 32768, as audio files mean it. No quotient by 32767 is
// one by 32768, except for the largest and 0, so each is recognised.
function restoreIntegers(samples) {
  for (let i = 0; i < samples.length; i++) {
    const exact = samples[i] * 32768;
    if (!Number.isInteger(exact)) samples[i] = Math.round(samples[i] * 32767) / 32768;
    else if (exact === 32768) samples[i] = 32767 / 32768;
  }
}

function refuseExcess(name, samples) {
  let peak = 0;
  for (const sample of samples) {
    const size = Math.abs(sample);
    if (!(size <= peak)) peak = size; // NaN too
    if (peak !== peak) break;
  }
  if (!Number.isFinite(peak)) throw new EngineError(`${name}: contains NaN or infinite samples`, "unreadable-file");
  if (peak > LOUDEST) {
    throw new EngineError(
      `${name}: audio reaches ${peak.toPrecision(6)}, far beyond full scale, which is 1; integers must be divided by ` +
        "their full scale when they are stored as floats",
      "suspicious-input",
    );
  }
}
