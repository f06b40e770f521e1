// What a page without a server needs of this folder: the settings of a chain, and the chain itself.
import { NoiseField } from "./noise.js";
import { SamplerSettings } from "./settings.js";

// The settings of a form over the model's own, complete: SamplerSettings. Throws a RangeError, a sentence for people.
//   given              {sampler, steps, schedule, eta, timesteps}: text, empty if not chosen
//   usual              {sampler, steps, schedule, eta, timesteps}: the model's own; null if it has none
//   numDiffusionSteps  of the model
export function resolveSettings(given, usual, numDiffusionSteps) {
  return SamplerSettings.fromText(given).over(new SamplerSettings(usual)).resolved(numDiffusionSteps);
}

// One chain of one item: a Float32Array, the signal after the last step.
//   settings           what `resolveSettings` returned, or a copy of its properties
//   numDiffusionSteps  of the model
//   denoise            async (signal, timestep) -> predicted noise, both Float32Arrays of `length` samples. `signal`
//                      must not be kept: later steps overwrite it.
//   length             samples
//   seed, firstSample  see `NoiseField`
//   signal             AbortSignal, looked at before every step; optional
//   onStep             (done, total) after every step; optional
export async function runChain({
  settings, numDiffusionSteps, denoise, length, seed, firstSample = 0, signal = null, onStep = () => {},
}) {
  const sampler = new SamplerSettings(settings).make(numDiffusionSteps);
  const noise = new NoiseField(seed, length, firstSample);
  const chain = sampler.chain((draw) => noise.draw(draw));
  for (let step = chain.next(), done = 0; ; onStep(done, sampler.timesteps.length)) {
    if (step.done) return step.value;
    signal?.throwIfAborted();
    const predicted = await denoise(step.value.x, step.value.timestep);
    if (predicted.length !== length) {
      throw new Error(`the denoiser answered with ${predicted.length} samples; expected ${length}`);
    }
    step = chain.next(predicted);
    done += 1;
  }
}
