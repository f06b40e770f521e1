// Plays an original and its reconstruction in sync, while the reconstruction is still growing.
//
// Both are cut into the same pieces; the two buffers of a piece start at the same time of the audio clock, and gains
// decide which one is heard. So a switch changes what is heard, and never where.

const LEAD_S = 0.05; // from now to the first sample: time to schedule it
const PIECE_S = 0.1; // a growing track is scheduled in pieces of at least this duration
const LONGEST_PIECE_S = 10; // a piece is copied for the audio thread: this bounds its memory, and the work of a jump
const AHEAD_S = 20; // nothing is scheduled further ahead
const FADE_S = 0.008; // time constant of the crossfade

export const ORIGINAL = "original";
export const RECONSTRUCTION = "reconstruction";

// Events: "change" when playing, position by a jump, or side change.
export class Player extends EventTarget {
  #makeContext;
  #context = null;
  #gains = {};
  #tracks = {};
  #pieces = []; // scheduled: {at, from, length, sources}; at in s of the audio clock, the others in samples
  #position = 0; // sample, while nothing plays
  #playing = false;
  #side = RECONSTRUCTION;
  available = 0; // samples of the reconstruction so far
  length = 0;
  rate = 24000;
  complete = false;

  // makeContext(rate) -> an audio context at that rate, in which buffers join without a click
  constructor(makeContext = (rate) => new AudioContext({ sampleRate: rate })) {
    super();
    this.#makeContext = makeContext;
  }

  get playing() { return this.#playing; }
  get side() { return this.#side; }
  get original() { return this.#tracks[ORIGINAL]; }
  get samples() { return this.#tracks[RECONSTRUCTION]?.subarray(0, this.available); }

  // Forget what there was; the reconstruction follows by `append`.
  load(original, rate) {
    this.pause();
    if (this.#context && this.rate !== rate) {
      this.#context.close();
      this.#context = null;
      this.#gains = {};
    }
    this.rate = rate;
    this.length = original.length;
    this.#tracks = { [ORIGINAL]: original, [RECONSTRUCTION]: new Float32Array(original.length) };
    this.available = 0;
    this.complete = false;
    this.#position = 0;
    this.#changed();
  }

  append(part) {
    const taken = part.subarray(0, this.length - this.available);
    this.#tracks[RECONSTRUCTION].set(taken, this.available);
    this.available += taken.length;
    if (this.#playing) this.#schedule();
  }

  // The whole reconstruction, in place of what there was; what plays goes on with it.
  replace(samples) {
    const position = this.position;
    this.#tracks[RECONSTRUCTION] = new Float32Array(this.length);
    this.#tracks[RECONSTRUCTION].set(samples.subarray(0, this.length));
    this.available = Math.min(samples.length, this.length);
    this.complete = true;
    if (this.#playing) this.seek(position);
    else this.#changed();
  }

  // No more follows, be it the whole or what there was before a problem.
  finish() {
    this.complete = true;
    if (this.#playing) {
      this.#schedule();
      if (this.#pieces.at(-1)?.isOver ?? true) this.#stop();
    }
    this.#changed();
  }

  async play() {
    if (this.#playing || !this.available) return;
    this.#prepare();
    if (this.complete && this.#position >= this.available) this.#position = 0;
    this.#playing = true;
    this.#changed();
    if (this.#context.state === "suspended" && this.#context instanceof AudioContext) await this.#context.resume();
    if (this.#playing && !this.#pieces.length) this.#schedule();
  }

  pause() {
    if (!this.#playing) return;
    this.#position = this.position;
    this.#playing = false;
    this.#unschedule();
    this.#changed();
  }

  // To a sample; beyond what there is so far, to its end.
  seek(sample) {
    this.#position = Math.max(0, Math.min(Math.round(sample), this.available));
    if (this.#playing) {
      this.#unschedule();
      this.#schedule();
      if (this.complete && !this.#pieces.length) this.#stop();
    }
    this.#changed();
  }

  set side(side) {
    this.#side = side;
    for (const [name, gain] of Object.entries(this.#gains)) {
      gain.gain.setTargetAtTime(name === side ? 1 : 0, this.#context.currentTime, FADE_S);
    }
    this.#changed();
  }

  // The sample that is heard now.
  get position() {
    if (!this.#pieces.length) return this.#position;
    const now = this.#context.currentTime;
    const piece = this.#pieces.findLast(({ at }) => at <= now) ?? this.#pieces[0];
    const passed = Math.max(0, Math.round((now - piece.at) * this.rate));
    return piece.from + Math.min(passed, piece.length);
  }

  #prepare() {
    if (this.#context) return;
    this.#context = this.#makeContext(this.rate);
    for (const name of [ORIGINAL, RECONSTRUCTION]) {
      const gain = this.#context.createGain();
      gain.gain.value = name === this.#side ? 1 : 0;
      gain.connect(this.#context.destination);
      this.#gains[name] = gain;
    }
  }

  // Schedule what is there and not scheduled yet, as far as `AHEAD_S`; each piece that ends schedules more.
  #schedule() {
    while (this.#scheduleNext());
  }

  // Whether another piece was scheduled.
  #scheduleNext() {
    const last = this.#pieces.at(-1);
    const end = last && last.at + last.length / this.rate;
    if (end > this.#context.currentTime + AHEAD_S) return false;
    const from = last ? last.from + last.length : this.#position;
    const length = Math.min(this.available - from, LONGEST_PIECE_S * this.rate);
    if (length <= 0 || (!this.complete && length < PIECE_S * this.rate)) return false;
    const soon = this.#context.currentTime + LEAD_S;
    const at = Math.round((last ? Math.max(end, soon) : soon) * this.rate) / this.rate;
    const sources = [ORIGINAL, RECONSTRUCTION].map((name) => {
      const buffer = this.#context.createBuffer(1, length, this.rate);
      buffer.copyToChannel(this.#tracks[name].subarray(from, from + length), 0);
      const source = this.#context.createBufferSource();
      source.buffer = buffer;
      source.connect(this.#gains[name]);
      source.start(at);
      return source;
    });
    const piece = { at, from, length, sources, isOver: false };
    sources[0].onended = () => this.#ended(piece);
    this.#pieces.push(piece);
    return true;
  }

  #ended(piece) {
    this.#schedule();
    if (piece !== this.#pieces.at(-1)) {
      this.#pieces = this.#pieces.slice(this.#pieces.indexOf(piece) + 1);
      return;
    }
    piece.isOver = true;
    if (!this.complete) return;
    this.#stop();
    this.#changed();
  }

  // All pieces are over. Their sources are left alone: to stop the second one of a piece in the moment in which the
  // first one ended would cut its last block.
  #stop() {
    this.#pieces = [];
    this.#position = this.available;
    this.#playing = false;
  }

  #unschedule() {
    for (const { sources } of this.#pieces) {
      sources[0].onended = null;
      for (const source of sources) {
        source.stop();
        source.disconnect();
      }
    }
    this.#pieces = [];
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
