// Timesteps of samplers that use a subset of the trained ones; see gomin_client/sampling/spacing.py.
import { oneOf, quoted } from "./text.js";

// The number of timesteps of a schedule. Throws a RangeError for fewer steps than 1, or more than timesteps.
export function checkSteps(steps, schedule) {
  if (!(steps >= 1 && steps <= schedule.length)) {
    throw new RangeError(
      `steps ${steps}: expected 1 to ${schedule.length}, the timesteps that the model was trained with`,
    );
  }
  return schedule.length;
}

// The timesteps of the spacing "trailing", descending from total - 1.
export function trailing(total, steps) {
  const stride = total - total / steps - total; // numpy.arange adds multiples of its second value minus its first
  return Array.from({ length: steps }, (_, i) => roundHalfToEven(total + i * stride) - 1);
}

// The timesteps of one of a sampler's spacings. Throws a RangeError if the sampler has no such spacing.
export function chooseSpacing(spacing, descending) {
  if (!Object.hasOwn(descending, spacing)) {
    throw new RangeError(`spacing ${quoted(spacing)}: expected ${oneOf(Object.keys(descending))}`);
  }
  return descending[spacing];
}

export function roundHalfToEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}
