// Timesteps of samplers that use a subset of the trained ones; see gomin_client/sampling/spacing.py.
import { linspace } from "./schedules.js";
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

// Explicit timesteps, which must decrease and be timesteps of the schedule. Throws a RangeError if they do not.
export function checkTimesteps(timesteps, schedule) {
  if (!timesteps.length) throw new RangeError("timesteps: expected one or more");
  for (const timestep of timesteps) {
    if (!(timestep >= 0 && timestep < schedule.length)) {
      throw new RangeError(
        `timesteps: ${timestep} is out of range; expected 0 to ${schedule.length - 1}, the timesteps that the model ` +
        "was trained with",
      );
    }
  }
  for (const [i, following] of timesteps.slice(1).entries()) {
    if (following >= timesteps[i]) {
      throw new RangeError(
        `timesteps: ${following} follows ${timesteps[i]}; expected each to be less than the one before`,
      );
    }
  }
  return [...timesteps];
}

// The timesteps of a multistep solver. Throws a RangeError if steps, timesteps or spacing is out of range, or timesteps
// repeat because there are too many steps.
//   steps    the number of steps, or an array of their timesteps, which have no spacing
export function solverTimesteps(steps, schedule, spacing) {
  if (Array.isArray(steps)) return checkTimesteps(steps, schedule);
  const total = checkSteps(steps, schedule);
  const stride = Math.floor(total / (steps + 1));
  const timesteps = chooseSpacing(spacing, {
    leading: Array.from({ length: steps }, (_, i) => (steps - i) * stride),
    linspace: Array.from(linspace(0, total - 1, steps + 1), roundHalfToEven).slice(1).reverse(),
    trailing: trailing(total, steps),
  });
  if (new Set(timesteps).size < steps) {
    throw new RangeError(
      `steps ${steps}: with spacing ${quoted(spacing)}, timesteps repeat; take fewer, or 'trailing'`,
    );
  }
  return timesteps;
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
