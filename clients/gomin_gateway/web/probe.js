// The values of both spectrograms at one time and frequency: under the pointer, or at the player's position and the
// band that the slider chooses.
import { RANGE_DB } from "./distances.js";
import { Bands, frequency, label, timeTicks } from "./axes.js";

const find = (id) => document.getElementById(id);

export class Probe {
  #player;
  #bands = null;
  #mels = {}; // original, reconstruction: {values, bands, frames}
  #hovered = null; // {share, band} under the pointer

  constructor(player) {
    this.#player = player;
    find("band").addEventListener("input", () => this.show());
    for (const plot of document.querySelectorAll(".plot")) {
      const place = (event) => {
        const { left, top, width, height } = plot.getBoundingClientRect();
        const share = Math.max(0, Math.min(1, (event.clientX - left) / width));
        return { share, band: this.#bands.at((event.clientY - top) / height) };
      };
      plot.addEventListener("pointermove", (event) => this.#hover(event.pointerType === "touch" ? null : place(event)));
      plot.addEventListener("pointerleave", () => this.#hover(null));
      plot.addEventListener("pointerdown", (event) => {
        const { share, band } = place(event);
        find("band").value = band;
        player.seek(share * player.length);
      });
    }
  }

  // A new original, of a model with the mel settings {n_mels, f_min, f_max}.
  load(original, settings) {
    this.#bands = new Bands(settings);
    this.#mels = { original };
    find("band").max = this.#bands.count - 1;
    find("band").value = this.#bands.at(this.#bands.place(1000));
    for (const axis of document.querySelectorAll(".bands")) label(axis, this.#bands.ticks);
    label(find("times"), timeTicks(this.#player.length / this.#player.rate));
    this.show();
  }

  complete(reconstruction) {
    this.#mels.reconstruction = reconstruction;
    this.show();
  }

  show() {
    if (!this.#bands) return;
    const { position, length, rate } = this.#player;
    const { share, band } = this.#hovered ?? { share: length ? position / length : 0, band: Number(find("band").value) };
    const [original, reconstruction] = ["original", "reconstruction"].map((name) => this.#level(name, share, band));
    const hertz = frequency(this.#bands.centre(band));
    const values = {
      place: `${((share * length) / rate).toFixed(2)} s, ${hertz}`,
      original: decibels(original),
      reconstruction: decibels(reconstruction),
      difference: decibels(reconstruction - original, true),
    };
    for (const [name, text] of Object.entries(values)) find(`value-${name}`).textContent = text;
    find("band").setAttribute(
      "aria-valuetext",
      `${hertz}: original ${values.original}, reconstruction ${values.reconstruction}`,
    );
    find("figures").style.setProperty("--band", 1 - (band + 0.5) / this.#bands.count);
    find("figures").style.setProperty("--hover", this.#hovered ? share : -1);
  }

  #hover(place) {
    this.#hovered = place;
    this.show();
  }

  // in dB; NaN where there is nothing
  #level(name, share, band) {
    const mel = this.#mels[name];
    if (!mel) return NaN;
    const frame = Math.min(mel.frames - 1, Math.floor(share * mel.frames));
    return RANGE_DB * (mel.values[band * mel.frames + frame] - 1);
  }
}

function decibels(value, isSigned = false) {
  if (Number.isNaN(value)) return "–";
  const text = value.toFixed(1).replace(/^-(0\.0)$/, "$1").replace("-", "−");
  return `${isSigned && value >= 0.05 ? "+" : ""}${text} dB`;
}
