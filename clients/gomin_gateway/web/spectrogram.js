// Draws mel spectrograms, and the difference of two, on canvases.
import { RANGE_DB } from "./distances.js";

const MOST_COLUMNS = 2048;
export const DIFFERENCE_DB = 20; // at the ends of the scale of differences

// Anchors of the scales, from the lowest to the highest value.
const LEVELS = ["#0b0d17", "#2b1a52", "#67217e", "#a8327d", "#e4545f", "#fb9b5f", "#fce6a4", "#fffbea"];
const DIFFERENCES = ["#9bd8ff", "#3b8fd6", "#1c4468", "#12141c", "#6b2f1c", "#d9672f", "#ffd09a"];

export function drawMel(canvas, mel) {
  draw(canvas, mel, (value) => value, LEVELS);
}

// other minus reference
export function drawDifference(canvas, reference, other) {
  const frames = Math.min(reference.frames, other.frames);
  const values = new Float32Array(reference.bands * frames);
  for (let band = 0; band < reference.bands; band++) {
    for (let frame = 0; frame < frames; frame++) {
      values[band * frames + frame] =
        other.values[band * other.frames + frame] - reference.values[band * reference.frames + frame];
    }
  }
  const scale = RANGE_DB / (2 * DIFFERENCE_DB);
  draw(canvas, { bands: reference.bands, frames, values }, (value) => 0.5 + value * scale, DIFFERENCES);
}

export function drawScale(canvas, isDifference) {
  const values = Float32Array.from({ length: canvas.width }, (_, i) => i / (canvas.width - 1));
  draw(canvas, { bands: 1, frames: canvas.width, values }, (value) => value, isDifference ? DIFFERENCES : LEVELS);
}

export function clear(canvas) {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

// One pixel for each band and frame, or for the mean of several frames; style sheets scale it.
function draw(canvas, { bands, frames, values }, level, anchors) {
  const table = lookup(anchors);
  const columns = Math.min(frames, MOST_COLUMNS);
  canvas.width = columns;
  canvas.height = bands;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, bands);
  const pixels = new Uint32Array(image.data.buffer);
  for (let band = 0; band < bands; band++) {
    for (let column = 0; column < columns; column++) {
      const first = Math.floor((column * frames) / columns);
      const end = Math.max(first + 1, Math.floor(((column + 1) * frames) / columns));
      let sum = 0;
      for (let frame = first; frame < end; frame++) sum += values[band * frames + frame];
      const at = Math.round(255 * Math.min(1, Math.max(0, level(sum / (end - first)))));
      pixels[(bands - 1 - band) * columns + column] = table[at];
    }
  }
  context.putImageData(image, 0, 0);
}

// 256 colours as the pixels of an image, between anchors
function lookup(anchors) {
  const bytes = new Uint8ClampedArray(1024);
  const colours = anchors.map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (colours.length - 1);
    const below = Math.min(Math.floor(place), colours.length - 2);
    const share = place - below;
    for (let c = 0; c < 3; c++) bytes[4 * i + c] = colours[below][c] * (1 - share) + colours[below + 1][c] * share;
    bytes[4 * i + 3] = 255;
  }
  return new Uint32Array(bytes.buffer);
}
