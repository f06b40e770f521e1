// Windows of a mel, vocoded one by one; their joined outputs equal the output for the whole. The same as
// gomin_client/inference/windows.py, whose tests hold both to the same windows.

const MIN_WINDOW = 512; // frames
const WORK_PER_HALO = 10; // halos per window, at least

// The number of frames of a window. halo: frames to either side that an output depends on; maxFrames: the most that the
// model takes in one request, or null.
export function chooseSize(halo, maxFrames) {
  const size = Math.min(Math.max(MIN_WINDOW, WORK_PER_HALO * halo), maxFrames ?? Infinity);
  if (size <= 2 * halo) {
    throw new RangeError(
      `the model takes at most ${maxFrames} frames in one request, but windows need more than ${2 * halo}, twice the ` +
        "halo: take fewer sampling steps",
    );
  }
  return size;
}

// Cuts a mel of unknown length into windows while its frames arrive. A window is {first, length, skip, keep}, in frames:
// `length` frames from `first` are vocoded, and `keep` frames of the output are kept after `skip`.
export class Windower {
  #size;
  #halo;
  #nextSize;
  #arrived = 0;
  #made = 0; // frames of output that the windows so far keep

  // firstSize: frames of the first window, to have its output soon; the next ones double up to `size`
  constructor(size, halo, firstSize = size) {
    this.#size = size;
    this.#halo = halo;
    this.#nextSize = Math.min(firstSize, size);
  }

  // Windows that are complete after `frames` more frames have arrived.
  *feed(frames) {
    this.#arrived += frames;
    for (;;) {
      const first = Math.max(0, this.#made - this.#halo);
      if (this.#arrived <= first + this.#nextSize) return;
      yield this.#window(first, this.#nextSize, first + this.#nextSize - this.#halo);
      this.#nextSize = Math.min(2 * this.#nextSize, this.#size);
    }
  }

  // The last window: no more frames will come.
  *finish() {
    if (this.#made >= this.#arrived) return;
    const length = Math.min(this.#size, this.#arrived);
    yield this.#window(this.#arrived - length, length, this.#arrived);
  }

  #window(first, length, until) {
    const window = { first, length, skip: this.#made - first, keep: until - this.#made };
    this.#made = until;
    return window;
  }
}
