// What samplers share. A sampler has `timesteps`, one for each step, and `chain(noise)`: a generator that yields
// {x, timestep}, is sent the noise that the denoiser predicts in x, and returns the signal after the last step.
// x is one Float32Array, which later steps overwrite. noise(draw) is a new Float32Array of the same length: draw 0 is
// the start of the chain, draw k belongs to its k-th step.
//
// Arithmetic is as in the Python package gomin_client/sampling: float32 where numpy computes in float32, to the bit.

// Half the logarithm of the ratio of the signal's power to the noise's: the time of the multistep solvers.
export function halfLogSnr(alphaBar) {
  return Math.log(alphaBar / (1 - alphaBar)) / 2;
}

// The signal in x if epsilon is the noise in it, of one sample; clipped to [-1, 1]. Computed in float64, since the rest
// of the signal may be magnified a thousand times (at the end of the cosine schedule).
export function predictedSignal(x, epsilon, noiseScale, signalScale) {
  const signal = (x - noiseScale * epsilon) / signalScale;
  return Math.fround(signal < -1 ? -1 : signal > 1 ? 1 : signal); // NaN stays NaN
}

// Shares of noise and of signal in amplitude, for `predictedSignal`.
export function scales(alphaBar) {
  return [Math.sqrt(1 - alphaBar), Math.sqrt(alphaBar)];
}
