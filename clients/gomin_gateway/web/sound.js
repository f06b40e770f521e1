// The choice of a sound: a file, dropped or picked, a recording, or an example.
import { Recorder } from "./recorder.js";

// types of browsers for files that may have sound; videos have, too
const SOUNDS = /^(audio|video)\/|^application\/(ogg|octet-stream|x-|vnd\.)/;
const find = (id) => document.getElementById(id);

export class Sound {
  #onChosen;
  #onProblem;
  #recorder = null;
  #isStarting = false;
  #choices = 0; // so far; an example that arrives after another choice is not taken
  file = null;
  example = "";

  // onChosen(text): a description of what is chosen; onProblem(text)
  constructor({ onChosen, onProblem }) {
    this.#onChosen = onChosen;
    this.#onProblem = onProblem;
    find("file").addEventListener("change", ({ target }) => {
      if (target.files.length) this.#offer(target.files[0]);
      target.value = ""; // the same file may be chosen again
    });
    find("record").addEventListener("click", () => this.#toggleRecording());
    for (const button of document.querySelectorAll("[data-example]")) {
      button.addEventListener("click", () => this.takeExample(button.dataset.example));
    }
    this.#acceptDrops();
  }

  async takeExample(name) {
    const known = [...document.querySelectorAll("[data-example]")].some((button) => button.dataset.example === name);
    const choice = ++this.#choices;
    const content = known ? await load(`examples/${name}.flac`) : null;
    if (choice !== this.#choices) return;
    if (content) this.#take(new File([content], `${name}.flac`), name);
    else this.#onProblem(`The example “${name}” cannot be loaded.`);
  }

  #take(file, example = "") {
    this.#choices += 1;
    this.file = file;
    this.example = example;
    this.#onChosen(`${file.name}, ${sizeOf(file.size)}`);
  }

  // Anywhere on the page: a file that misses the box would otherwise replace the page.
  #acceptDrops() {
    const box = find("drop");
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      box.classList.add("over");
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) box.classList.remove("over");
    });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      box.classList.remove("over");
      this.#drop(event.dataTransfer);
    });
  }

  #drop({ files, items }) {
    const hasFolder = [...items].some((item) => item.webkitGetAsEntry?.()?.isDirectory);
    if (hasFolder) this.#onProblem("That is a folder. Drop one recording.");
    else if (files.length > 1) this.#onProblem(`Those are ${files.length} files. Drop one recording.`);
    else if (!files.length) this.#onProblem("That is not a file. Drop a recording, such as a .wav, .flac or .mp3 file.");
    else this.#offer(files[0]);
  }

  // Take a file, unless it is certainly none of sound. The engine decides about the rest by its content.
  #offer(file) {
    if (!file.size) this.#onProblem(`${file.name} is empty.`);
    else if (file.type && !SOUNDS.test(file.type)) {
      this.#onProblem(`${file.name} is not a sound (${file.type}). Choose a recording, such as a .wav, .flac or .mp3 file.`);
    } else this.#take(file);
  }

  async #toggleRecording() {
    if (this.#isStarting) return;
    if (this.#recorder) {
      const file = this.#recorder.stop();
      this.#recorder = null;
      this.#showRecording(false);
      if (file) this.#take(file);
      else this.#onProblem("The microphone gave no sound.");
      return;
    }
    if (!Recorder.available) {
      this.#onProblem("Browsers record only on pages from https:// or localhost.");
      return;
    }
    this.#isStarting = true;
    this.#choices += 1;
    const recorder = new Recorder();
    try {
      await recorder.start();
      this.#recorder = recorder;
      this.#showRecording(true);
    } catch (error) {
      const reason = error.name === "NotAllowedError" ? "the browser does not allow it" : error.message;
      this.#onProblem(`The microphone cannot be used: ${reason}.`);
    } finally {
      this.#isStarting = false;
    }
  }

  #showRecording(isOn) {
    const button = find("record");
    button.setAttribute("aria-pressed", isOn);
    button.textContent = isOn ? "Stop" : "Record";
    clearInterval(this.timer);
    if (!isOn) return;
    find("chosen").textContent = "Recording …";
    this.timer = setInterval(() => { button.textContent = `Stop (${this.#recorder.seconds.toFixed(0)} s)`; }, 250);
  }
}

// The content of a file of the page; null if it cannot be loaded.
async function load(address) {
  try {
    const response = await fetch(address);
    return response.ok ? await response.blob() : null;
  } catch {
    return null;
  }
}

function sizeOf(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
