// The sample rate that the header of a compressed audio file names, and the bits of a sample if they are integers.

const FIND_WITHIN = 1 << 20; // bytes, of headers without a fixed place

// bytes: of the whole file. Returns {rate, bits}; what is not known is missing.
export function streamInfo(bytes) {
  const at = afterId3(bytes);
  if (text(bytes, at, 4) === "fLaC") return flac(bytes, at);
  if (text(bytes, 0, 4) === "OggS") return ogg(bytes);
  if (text(bytes, 4, 4) === "ftyp") return mp4(bytes);
  return mpegAudio(bytes, at);
}

// STREAMINFO is always the first block: RFC 9639, section 8.2.
function flac(bytes, at) {
  const place = at + 8 + 10;
  if (place + 4 > bytes.length) return {};
  const [a, b, c, d] = bytes.subarray(place, place + 4);
  return usable((a << 12) | (b << 4) | (c >> 4), (((c & 1) << 4) | (d >> 4)) + 1);
}

// The first packet of a stream: Vorbis I, section 4.2.2; Opus is always decoded at 48 kHz; FLAC in Ogg.
function ogg(bytes) {
  const packet = 27 + bytes[26]; // after the page's table of segments
  if (text(bytes, packet, 7) === "\x01vorbis") return usable(u32(bytes, packet + 12));
  if (text(bytes, packet, 8) === "OpusHead") return { rate: 48000 };
  if (text(bytes, packet, 5) === "\x7fFLAC") return flac(bytes, packet + 9);
  return {};
}

// The first sample entry of MPEG-4 audio: its rate is a 16.16 number, 28 bytes after the entry's name. ISO 14496-12.
function mp4(bytes) {
  for (let at = 0; at + 32 <= bytes.length; at++) {
    if (bytes[at] === 0x6d && text(bytes, at, 4) === "mp4a") {
      const rate = (bytes[at + 28] << 8) | bytes[at + 29];
      if (rate >= 8000) return usable(rate);
    }
  }
  return {};
}

const MPEG_RATES = [[11025, 12000, 8000], null, [22050, 24000, 16000], [44100, 48000, 32000]]; // by version
const AAC_RATES = [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350];

// The first frame of MP3 (ISO 11172-3) or of AAC with ADTS headers (ISO 13818-7).
function mpegAudio(bytes, from) {
  const end = Math.min(bytes.length - 4, from + FIND_WITHIN);
  for (let at = from; at < end; at++) {
    if (bytes[at] !== 0xff || bytes[at + 1] < 0xe0) continue;
    const layer = (bytes[at + 1] >> 1) & 3;
    if (layer === 0 && bytes[at + 1] >= 0xf0) {
      const rate = AAC_RATES[(bytes[at + 2] >> 2) & 15];
      if (rate) return { rate };
      continue;
    }
    const rate = MPEG_RATES[(bytes[at + 1] >> 3) & 3]?.[(bytes[at + 2] >> 2) & 3];
    const bitrate = bytes[at + 2] >> 4;
    if (layer !== 0 && rate && bitrate !== 15) return { rate };
  }
  return {};
}

function afterId3(bytes) {
  if (text(bytes, 0, 3) !== "ID3") return 0;
  const [a, b, c, d] = bytes.subarray(6, 10);
  return 10 + ((a << 21) | (b << 14) | (c << 7) | d);
}

// Browsers decode at rates in this range: Web Audio API, section 1.1.1.
function usable(rate, bits) {
  return rate >= 8000 && rate <= 96000 ? { rate, bits } : { bits };
}

function text(bytes, at, length) {
  return String.fromCharCode(...bytes.subarray(at, at + length));
}

function u32(bytes, at) {
  return new DataView(bytes.buffer, bytes.byteOffset + at, 4).getUint32(0, true);
}
