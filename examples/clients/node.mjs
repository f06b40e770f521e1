// Reconstruct a WAV file with Node 18 or newer, without packages. The request is the bare samples: see docs/http.md.
//
//   node node.mjs URL IN.wav OUT.wav
//
// URL: the server, as http://localhost:8000. IN.wav: integers of 16, 24 or 32 bits, or 32-bit floats, at the model's
// sample rate; channels are averaged. OUT.wav: 32-bit floats, one channel.
import { readFile, rename, rm, writeFile } from "node:fs/promises";

const MODEL = "gomin_reconstruct";
const PCM = 1;
const FLOAT = 3;
const EXTENSIBLE = 0xfffe; // the format proper follows 24 bytes later

/** The answer to a GET, or to a POST if there is a body; throws what the server answers if it is an error. */
async function request(url, body) {
  let answer;
  try {
    answer = await fetch(url, {
      method: body ? "POST" : "GET",
      body,
      headers: body && { "Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0" },
    });
  } catch (error) {
    throw new Error(`no answer from ${url}: ${error.cause?.message || error.cause?.code || error.message}`);
  }
  if (!answer.ok) throw new Error(`${url} answers ${answer.status}: ${await answer.text()}`);
  return answer;
}

/** One channel of a WAV file: { rate, samples }, full scale ±1. */
function decodeWav(file, path) {
  const fail = (reason) => {
    throw new Error(`${path}: ${reason}`);
  };
  if (file.length < 12 || file.toString("latin1", 0, 4) !== "RIFF" || file.toString("latin1", 8, 12) !== "WAVE") {
    fail("not a WAV file");
  }
  let format;
  let data;
  for (let at = 12; at + 8 <= file.length && !data; ) {
    const name = file.toString("latin1", at, at + 4);
    const size = file.readUInt32LE(at + 4);
    const content = file.subarray(at + 8, at + 8 + size); // a longer size than the file's: up to the file's end
    if (name === "fmt ") format = content;
    if (name === "data") data = content;
    at += 8 + size + (size % 2);
  }
  if (!format || format.length < 16 || !data) fail("not a complete WAV file");
  let code = format.readUInt16LE(0);
  if (code === EXTENSIBLE && format.length >= 26) code = format.readUInt16LE(24);
  const channels = format.readUInt16LE(2);
  const rate = format.readUInt32LE(4);
  const bits = format.readUInt16LE(14);
  const isFloat = code === FLOAT && bits === 32;
  if (!isFloat && !(code === PCM && [16, 24, 32].includes(bits))) {
    fail(`format ${code} of ${bits} bits; expected integers of 16, 24 or 32 bits, or floats of 32 bits`);
  }
  if (channels === 0) fail("it has no channels");
  const width = bits / 8;
  const scale = 2 ** (bits - 1);
  const samples = new Float32Array(Math.floor(data.length / (width * channels)));
  for (let index = 0; index < samples.length; index++) {
    let sum = 0;
    for (let channel = 0; channel < channels; channel++) {
      const at = (index * channels + channel) * width;
      sum += isFloat ? data.readFloatLE(at) : data.readIntLE(at, width) / scale;
    }
    samples[index] = sum / channels;
  }
  return { rate, samples };
}

/** A WAV file with one channel of 32-bit floats. `samples`: little-endian bytes. */
function encodeWav(samples, rate) {
  const header = Buffer.alloc(58);
  header.write("RIFF", 0, "latin1");
  header.writeUInt32LE(50 + samples.length, 4);
  header.write("WAVEfmt ", 8, "latin1");
  header.writeUInt32LE(18, 16);
  header.writeUInt16LE(FLOAT, 20);
  header.writeUInt16LE(1, 22); // channels
  header.writeUInt32LE(rate, 24);
  header.writeUInt32LE(rate * 4, 28); // bytes per second
  header.writeUInt16LE(4, 32); // bytes per sample
  header.writeUInt16LE(32, 34); // bits per sample
  header.write("fact", 38, "latin1"); // required unless the format is PCM
  header.writeUInt32LE(4, 42);
  header.writeUInt32LE(samples.length / 4, 46);
  header.write("data", 50, "latin1");
  header.writeUInt32LE(samples.length, 54);
  return Buffer.concat([header, samples]);
}

async function main([url, input, output]) {
  const model = `${url.replace(/\/$/, "")}/v2/models/${MODEL}`;
  const { parameters } = await (await request(`${model}/config`)).json();
  const modelRate = Number(parameters["gomin.sample_rate"].string_value);
  const { rate, samples } = decodeWav(await readFile(input), input);
  if (rate !== modelRate) {
    throw new Error(`${input}: ${rate} Hz, but the model takes ${modelRate} Hz: sox ${input} -r ${modelRate} new.wav`);
  }

  // Typed arrays are little-endian, as Triton expects, on every machine that Node supports but IBM Z.
  const answer = await request(`${model}/infer`, new Uint8Array(samples.buffer));
  const body = Buffer.from(await answer.arrayBuffer());
  const jsonLength = Number(answer.headers.get("Inference-Header-Content-Length"));
  const [tensor] = JSON.parse(body.toString("utf8", 0, jsonLength)).outputs;
  const reconstruction = body.subarray(jsonLength, jsonLength + tensor.parameters.binary_data_size);
  const trimmed = reconstruction.subarray(0, samples.byteLength); // whole frames come back

  // Beside the output, so that it gets its name only when it is complete.
  const part = `${output}.${process.pid}.part`;
  try {
    await writeFile(part, encodeWav(trimmed, modelRate));
    await rename(part, output);
  } finally {
    await rm(part, { force: true });
  }
}

if (process.argv.length !== 5) {
  console.error("usage: node node.mjs URL IN.wav OUT.wav");
  process.exit(2);
}
try {
  await main(process.argv.slice(2));
} catch (error) {
  console.error(`node.mjs: ${error.message}`);
  process.exit(1);
}
