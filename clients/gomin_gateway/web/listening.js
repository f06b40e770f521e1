// What is shown of a result: the controls of the player, spectrograms with a cursor, and the table of distances.
import { DIFFERENCE_DB, clear, drawDifference, drawMel, drawScale } from "./spectrogram.js";
import { Probe } from "./probe.js";
import { ORIGINAL, RECONSTRUCTION } from "./player.js";
import { RANGE_DB } from "./distances.js";

const find = (id) => document.getElementById(id);
const CALM_MS = 500; // between positions of the cursor, for those who asked for less motion

// name, unit, digits and meaning of each distance
const ROWS = [
  ["log_mel_l1_db", "Log-mel L1", " dB", 2, "Mean difference of the mel spectrograms. 0 is equal."],
  ["spectral_convergence", "Spectral convergence", "", 3, "Difference of the magnitudes, relative to the original. 0 is equal."],
  ["log_magnitude_l1", "Log-magnitude L1", "", 3, "Mean difference of the log magnitudes, in nepers. 0 is equal."],
  ["snr_db", "SNR", " dB", 1, "Compares waveforms, with their phases, which a mel does not have. Low values say little."],
];

export class Listening {
  #player;
  #probe;
  #worker = null;
  #calm = matchMedia("(prefers-reduced-motion: reduce)");
  #drawn = 0; // when the cursor was last moved, in ms

  constructor(player) {
    this.#player = player;
    this.#probe = new Probe(player);
    player.addEventListener("change", () => this.#showState());
    find("play").addEventListener("click", () => this.togglePlay());
    find("switch").addEventListener("click", () => {
      player.side = player.side === ORIGINAL ? RECONSTRUCTION : ORIGINAL;
    });
    find("seek").addEventListener("input", ({ target: { value, max, step } }) => {
      // the end may be less than a step behind the last value
      player.seek(max - value < step ? player.length : value * player.rate);
    });
    for (const name of ["original", "reconstruction"]) {
      drawScale(find(`${name}-scale`), false);
      find(`${name}-low`).textContent = `−${RANGE_DB}`;
      find(`${name}-high`).textContent = "0 dB";
    }
    drawScale(find("difference-scale"), true);
    find("difference-low").textContent = `−${DIFFERENCE_DB}`;
    find("difference-high").textContent = `+${DIFFERENCE_DB} dB`;
  }

  togglePlay() {
    if (this.#player.playing) this.#player.pause();
    else this.#player.play();
  }

  clear() {
    this.#worker?.terminate();
    find("result").hidden = true;
    find("distances").hidden = true;
    for (const name of ["original", "reconstruction", "difference"]) clear(find(`mel-${name}`));
  }

  // mel: of the original; model: as the engine has it
  showOriginal(mel, model) {
    find("result").hidden = false;
    drawMel(find("mel-original"), mel);
    this.#probe.load(mel, model.mel);
    this.#showState();
  }

  // mel: of what a step of a chain predicts; the comparison follows
  showStep(mel) {
    drawMel(find("mel-reconstruction"), mel);
  }

  async showComparison(original, made, signal) {
    drawMel(find("mel-reconstruction"), made.mel);
    drawDifference(find("mel-difference"), original.mel, made.mel);
    this.#probe.complete(made.mel);
    const found = await this.#distances(original, made, signal);
    find("rows").replaceChildren(...ROWS.map(([name, title, unit, digits, meaning]) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = title;
      const value = document.createElement("td");
      value.className = "number";
      value.dataset.distance = name;
      value.dataset.value = found[name];
      value.textContent = shown(found[name], digits, unit);
      const note = document.createElement("td");
      note.textContent = meaning;
      row.append(head, value, note);
      return row;
    }));
    const kept = made.step < made.steps && `kept after step ${made.step} of ${made.steps}`;
    const facts = [made.model, made.sampling, made.seed && `seed ${made.seed}`, kept].filter(Boolean);
    find("made").textContent = `Made by ${facts.join(", ")}.`;
    find("distances").hidden = false;
  }

  #distances(original, made, signal) {
    const worker = (this.#worker = new Worker("distances-worker.js", { type: "module" }));
    const part = ({ samples, mel }) => ({ samples, mel });
    return new Promise((resolve, reject) => {
      signal.addEventListener("abort", () => reject(new DOMException("cancelled", "AbortError")));
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => reject(new Error(`the distances cannot be computed: ${event.message ?? ""}`));
      worker.postMessage({ original: part(original), reconstruction: part(made) });
    }).finally(() => worker.terminate());
  }

  #showState() {
    const { playing, side, length, rate } = this.#player;
    const play = find("play");
    play.setAttribute("aria-label", playing ? "Pause" : "Play");
    play.classList.toggle("playing", playing);
    find("switch").setAttribute("aria-checked", side === RECONSTRUCTION);
    find("seek").max = length / rate;
    find("seek").step = Math.max(1, Math.ceil(length / rate / 2)) / 100; // arrow keys: half a percent
    this.#move();
    if (playing && !this.#isMoving) {
      this.#isMoving = true;
      requestAnimationFrame((now) => this.#follow(now));
    }
  }

  #isMoving = false;

  #follow(now) {
    if (!this.#player.playing) {
      this.#isMoving = false;
      return;
    }
    if (!this.#calm.matches || now - this.#drawn >= CALM_MS) {
      this.#drawn = now;
      this.#move();
    }
    requestAnimationFrame((next) => this.#follow(next));
  }

  // Show the position of the player.
  #move() {
    const { position, length, rate, available } = this.#player;
    const seconds = position / rate;
    find("seek").value = seconds;
    find("seek").setAttribute("aria-valuetext", `${seconds.toFixed(1)} of ${(length / rate).toFixed(1)} seconds`);
    find("time").textContent = `${seconds.toFixed(1)} / ${(length / rate).toFixed(1)} s`;
    find("figures").style.setProperty("--position", length ? position / length : 0);
    find("figures").style.setProperty("--available", length ? available / length : 0);
    this.#probe.show();
  }
}

function shown(value, digits, unit) {
  if (!Number.isFinite(value)) return value < 0 ? "−∞" : "∞";
  return `${value.toFixed(digits).replace("-", "−")}${unit}`;
}
