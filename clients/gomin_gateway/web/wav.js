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
