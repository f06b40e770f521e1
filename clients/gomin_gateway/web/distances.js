// The distances of gomin_client/tools/compare.py, between waveforms of one length at one rate.

const RESOLUTIONS = [[1024, 120, 600], [2048, 240, 1200], [512, 50, 240]]; // transform, hop, window, in samples
const FLOOR = 1e-7; // smallest magnitude in logarithms
export const RANGE_DB = 100; // of mels from 0 to 1

// original, reconstruction: {samples, mel}; the longer waveform is cut
export function distances(original, reconstruction) {
  const length = Math.min(original.samples.length, reconstruction.samples.length);
  const a = original.samples.subarray(0, length);
  const b = reconstruction.samples.subarray(0, length);
  let convergence = 0;
  let logMagnitude = 0;
  for (const resolution of RESOLUTIONS) {
    const found = stftDistances(a, b, ...resolution);
    convergence += found.convergence / RESOLUTIONS.length;
    logMagnitude += found.logMagnitude / RESOLUTIONS.length;
  }
  return {
    log_mel_l1_db: RANGE_DB * meanDifference(original.mel, reconstruction.mel),
    spectral_convergence: convergence,
    log_magnitude_l1: logMagnitude,
    snr_db: signalToNoise(a, b),
  };
}

function meanDifference(one, two) {
  let sum = 0;
  for (let i = 0; i < one.values.length; i++) sum += Math.abs(two.values[i] - one.values[i]);
  return sum / one.values.length;
}

function signalToNoise(a, b) {
  let signal = 0;
  let noise = 0;
  for (let i = 0; i < a.length; i++) {
    signal += a[i] ** 2;
    noise += (b[i] - a[i]) ** 2;
  }
  return noise === 0 ? Infinity : signal === 0 ? -Infinity : 10 * Math.log10(signal / noise);
}

// One transform of a + i b has the spectra of both: their even and odd parts.
function stftDistances(a, b, size, hop, windowLength) {
  const window = hann(size, windowLength);
  const transform = fft(size);
  const re = new Float64Array(size);
  const im = new Float64Array(size);
  let norm = 0;
  let difference = 0;
  let logs = 0;
  let count = 0;
  for (let frame = 0; frame <= Math.floor(a.length / hop); frame++) {
    const start = frame * hop - size / 2; // centred; zeros beyond the ends
    for (let i = 0; i < size; i++) {
      const at = start + i;
      const inside = at >= 0 && at < a.length;
      re[i] = inside ? window[i] * a[at] : 0;
      im[i] = inside ? window[i] * b[at] : 0;
    }
    transform(re, im);
    for (let k = 0; k <= size / 2; k++) {
      const m = (size - k) % size;
      const one = Math.hypot(re[k] + re[m], im[k] - im[m]) / 2;
      const two = Math.hypot(im[k] + im[m], re[m] - re[k]) / 2;
      norm += one ** 2;
      difference += (two - one) ** 2;
      logs += Math.abs(Math.log(Math.max(one, FLOOR) / Math.max(two, FLOOR)));
      count++;
    }
  }
  const ratio = norm ? Math.sqrt(difference / norm) : difference ? Infinity : 0;
  return { convergence: ratio, logMagnitude: logs / count };
}

// A periodic Hann window in the middle of zeros.
function hann(size, length) {
  const window = new Float64Array(size);
  const first = (size - length) / 2;
  for (let i = 0; i < length; i++) window[first + i] = 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / length);
  return window;
}

// An in-place radix-2 Fourier transform of one size, a power of two.
function fft(size) {
  const cos = Float64Array.from({ length: size / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / size));
  const sin = Float64Array.from({ length: size / 2 }, (_, i) => Math.sin((2 * Math.PI * i) / size));
  const bits = Math.log2(size);
  const reversed = Uint32Array.from({ length: size }, (_, i) => {
    let result = 0;
    for (let bit = 0; bit < bits; bit++) result |= ((i >> bit) & 1) << (bits - 1 - bit);
    return result;
  });
  return (re, im) => {
    for (let i = 0; i < size; i++) {
      const j = reversed[i];
      if (j > i) {
        [re[i], re[j]] = [re[j], re[i]];
        [im[i], im[j]] = [im[j], im[i]];
      }
    }
    for (let half = 1; half < size; half *= 2) {
      const stride = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let k = 0; k < half; k++) {
          const c = cos[k * stride];
          const s = sin[k * stride];
          const i = start + k;
          const j = i + half;
          const x = re[j] * c + im[j] * s;
          const y = im[j] * c - re[j] * s;
          re[j] = re[i] - x;
          im[j] = im[i] - y;
          re[i] += x;
          im[i] += y;
        }
      }
    }
  };
}
