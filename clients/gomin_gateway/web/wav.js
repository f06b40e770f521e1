// Mono float32 samples -> a WAV file, which holds the very same values.
export function encodeWav(samples, rate) {
  const header = new DataView(new ArrayBuffer(58));
  const bytes = samples.length * 4;
  let at = 0;
  const text = (word) => [...word].forEach((letter) => header.setUint8(at++, letter.charCodeAt(0)));
  const u16 = (value) => { header.setUint16(at, value, true); at += 2; };
  const u32 = (value) => { header.setUint32(at, value, true); at += 4; };
  text("RIFF"); u32(50 + bytes); text("WAVEfmt "); u32(18);
  u16(3); u16(1); u32(rate); u32(rate * 4); u16(4); u16(32); u16(0); // IEEE float, one channel, no extension
  text("fact"); u32(4); u32(samples.length);
  text("data"); u32(bytes);
  return new Blob([header, samples], { type: "audio/wav" });
}

const PCM = 1;
const FLOAT = 3;
const EXTENSIBLE = 0xfffe;

// A WAV file of integers or floats -> {channels: [Float32Array], rate}, exact; null for everything else.
export function parseWav(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const word = (at) => (at + 4 <= bytes.length ? String.fromCharCode(...bytes.subarray(at, at + 4)) : "");
  if (word(0) !== "RIFF" || word(8) !== "WAVE") return null;
  let format = null;
  for (let at = 12; at + 8 <= bytes.length; ) {
    const size = view.getUint32(at + 4, true);
    const start = at + 8;
    if (word(at) === "fmt " && size >= 16 && start + size <= bytes.length) {
      const isExtensible = view.getUint16(start, true) === EXTENSIBLE && size >= 40;
      format = {
        kind: view.getUint16(isExtensible ? start + 24 : start, true),
        channels: view.getUint16(start + 2, true),
        rate: view.getUint32(start + 4, true),
        bits: view.getUint16(start + 14, true),
      };
    } else if (word(at) === "data") {
      const read = format && READERS[`${format.kind}/${format.bits}`];
      if (!read || !format.channels || !format.rate) return null;
      return { channels: samplesOf(view, start, Math.min(size, bytes.length - start), format, read), rate: format.rate };
    }
    at = start + size + (size % 2);
  }
  return null;
}

// format and bits -> (view, place) -> sample
const READERS = {
  [`${PCM}/8`]: (view, at) => (view.getUint8(at) - 128) / 2 ** 7,
  [`${PCM}/16`]: (view, at) => view.getInt16(at, true) / 2 ** 15,
  [`${PCM}/24`]: (view, at) => (view.getUint8(at) | (view.getInt16(at + 1, true) << 8)) / 2 ** 23,
  [`${PCM}/32`]: (view, at) => view.getInt32(at, true) / 2 ** 31,
  [`${FLOAT}/32`]: (view, at) => view.getFloat32(at, true),
  [`${FLOAT}/64`]: (view, at) => view.getFloat64(at, true),
};

function samplesOf(view, start, size, { channels, bits }, read) {
  const step = (bits / 8) * channels;
  const length = Math.floor(size / step);
  return Array.from({ length: channels }, (_, channel) => {
    const samples = new Float32Array(length);
    for (let i = 0, at = start + (channel * bits) / 8; i < length; i++, at += step) samples[i] = read(view, at);
    return samples;
  });
}
