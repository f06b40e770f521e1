// The axes of mel spectrograms: where frequencies and seconds are in a picture.

const TICKS_HZ = [100, 500, 1000, 2000, 4000, 8000];
const MOST_TICKS = 6; // of the time axis

// Slaney's mel scale (Auditory Toolbox, 1998), as gomin_client/mel/features.py has it: linear below 1 kHz
const LINEAR_HZ = 200 / 3;
const BREAK_HZ = 1000;
const BREAK_MEL = BREAK_HZ / LINEAR_HZ;
const LOG_STEP = Math.log(6.4) / 27;

const melOf = (hertz) => hertz < BREAK_HZ ? hertz / LINEAR_HZ : BREAK_MEL + Math.log(hertz / BREAK_HZ) / LOG_STEP;
const hertzOf = (mel) => mel < BREAK_MEL ? mel * LINEAR_HZ : BREAK_HZ * Math.exp((mel - BREAK_MEL) * LOG_STEP);

// The mel bands of a model, from its settings {n_mels, f_min, f_max}.
export class Bands {
  constructor({ n_mels: count, f_min: lowest, f_max: highest }) {
    this.count = count;
    this.highest = highest;
    this.first = melOf(lowest);
    this.step = (melOf(highest) - this.first) / (count + 1);
  }

  // centre of a band, in Hz
  centre(band) {
    return hertzOf(this.first + (band + 1) * this.step);
  }

  // distance of a frequency from the top of a picture, as a share of its height
  place(hertz) {
    return 1 - ((melOf(hertz) - this.first) / this.step - 0.5) / this.count;
  }

  // band at a share of the height, from the top
  at(share) {
    return Math.max(0, Math.min(this.count - 1, Math.floor((1 - share) * this.count)));
  }

  get ticks() {
    const inside = TICKS_HZ.filter((hertz) => hertz < this.highest && this.place(hertz) < 1);
    return inside.map((hertz) => [frequency(hertz, 0), this.place(hertz)]);
  }
}

export function timeTicks(seconds) {
  const decade = 10 ** Math.floor(Math.log10(seconds));
  const step = [0.1, 0.2, 0.5, 1, 2, 5].map((part) => part * decade).find((found) => seconds / found <= MOST_TICKS);
  const ticks = [];
  for (let i = 0; i * step < seconds; i++) ticks.push([`${Number((i * step).toPrecision(6))} s`, (i * step) / seconds]);
  return ticks;
}

export function frequency(hertz, digits = 2) {
  return hertz < 1000 ? `${hertz.toFixed(0)} Hz` : `${(hertz / 1000).toFixed(digits)} kHz`;
}

// Write the labels of an axis into an element; the style sheet places them by --at, a share.
export function label(axis, ticks) {
  axis.replaceChildren(...ticks.map(([text, at]) => {
    const tick = document.createElement("span");
    tick.textContent = text;
    tick.style.setProperty("--at", at);
    return tick;
  }));
}
