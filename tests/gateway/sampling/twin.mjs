// Calls the JavaScript twins of gomin_client.sampling: {group: [case]} on standard input -> {group: [{value} or
// {error}]}.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const load = (name) => import(pathToFileURL(join(process.argv[2], "sampling", name)));
const { runChain, resolveSettings } = await load("chain.js");
const { DDIM } = await load("ddim.js");
const { DPMSolver } = await load("dpm-solver.js");
const { SDEDPMSolver } = await load("dpm-solver-sde.js");
const { UniPC } = await load("unipc.js");
const { NoiseField } = await load("noise.js");
const { fillBlocks, roundKeys } = await load("philox.js");
const { SAMPLERS, SCHEDULES } = await load("registry.js");
const { NoiseSchedule } = await load("schedules.js");
const { SamplerSettings } = await load("settings.js");
const { Tiling, tiledDenoiser } = await load("tiling.js");
const { fround } = Math;

const binary = (array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("base64");
const NOT_FINITE = { nan: NaN, inf: Infinity, "-inf": -Infinity };
const number = (value) => NOT_FINITE[value] ?? value;

const CALLS = {
  registry: () => ({
    samplers: [...SAMPLERS].map(([name, { summary, options }]) => [name, summary, options]),
    schedules: SCHEDULES,
  }),
  words: ({ seed, block, draw, blocks }) => {
    const words = new Uint32Array(8 * blocks);
    fillBlocks(words, roundKeys(BigInt(seed)), BigInt(block), draw);
    return binary(words);
  },
  noise: ({ seed, length, first, draw }) => binary(new NoiseField(BigInt(seed), length, BigInt(first)).draw(draw)),
  schedule: ({ name, steps }) => binary(NoiseSchedule.named(name, steps).alphasCumprod),
  betas: ({ betas }) => binary(NoiseSchedule.fromBetas(betas.map(number)).alphasCumprod),
  timesteps: ({ sampler, schedule, steps, spacing }) => {
    const trained = NoiseSchedule.named(...schedule);
    if (sampler === "ddim") return new DDIM(trained, steps, 0, spacing).timesteps;
    const Solver = { "dpm++": DPMSolver, "dpm++sde": SDEDPMSolver, unipc: UniPC }[sampler];
    return new Solver(trained, steps, spacing).timesteps;
  },
  settings: ({ given, usual, steps }) =>
    SamplerSettings.fromParameters(given).over(SamplerSettings.fromParameters(usual)).resolved(steps).toParameters(),
  eta: ({ eta }) => new SamplerSettings({ sampler: "ddim", eta: number(eta) }).resolved(50),
  form: ({ given, usual, steps }) => String(resolveSettings(given, usual, steps)),
  tiles: ({ hop, halo, most, frames }) =>
    new Tiling(hop, halo, most).tiles(frames).map(({ first, begin, end }) => [first, begin, end]),
  chain: async ({ given, usual, numSteps, mel, hop, most, seed, first }) => {
    const settings = SamplerSettings.fromParameters(given).over(new SamplerSettings(usual));
    const tiled = tiledDenoiser(new Tiling(hop, 1, most), mel.length, async (signal, timestep, from, frames) =>
      toyDenoiser(signal, timestep, mel.slice(from, from + frames), hop));
    const length = hop * mel.length;
    return binary(await runChain({
      settings, numDiffusionSteps: numSteps, denoise: tiled, length, seed: BigInt(seed), firstSample: first,
    }));
  },
  progress: async ({ steps, abortAfter, length }) => {
    const controller = new AbortController();
    if (abortAfter === 0) controller.abort();
    const log = [];
    let calls = 0;
    const made = runChain({
      settings: { sampler: "ddim", steps },
      numDiffusionSteps: 50,
      denoise: async (signal) => {
        calls += 1;
        return new Float32Array(length ?? signal.length);
      },
      length: 10,
      seed: 1n,
      signal: controller.signal,
      onStep: (done, total) => {
        log.push([done, total]);
        if (done === abortAfter) controller.abort();
      },
    });
    const end = await made.then(() => "done", (error) => (error.name === "AbortError" ? "aborted" : error.message));
    return { calls, log, end };
  },
};

// As test_chain.py has it.
function toyDenoiser(signal, timestep, mel, hop) {
  const at = (i) => (i >= 0 && i < signal.length ? signal[i] : 0);
  const gain = fround(1 + fround(fround(0.001) * fround(timestep)));
  return Float32Array.from(signal, (sample, i) => {
    const near = fround(fround(0.25) * fround(at(i - hop) - at(i + hop)));
    return fround(fround(fround(gain * sample) + near) + fround(mel[Math.floor(i / hop)]));
  });
}

const given = JSON.parse(readFileSync(0, "utf8"));
const answers = {};
for (const [group, cases] of Object.entries(given)) {
  answers[group] = [];
  for (const wanted of cases) {
    try {
      answers[group].push({ value: await CALLS[group](wanted) });
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      answers[group].push({ error: error.message });
    }
  }
}
process.stdout.write(JSON.stringify(answers));
