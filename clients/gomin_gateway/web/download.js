// The download of a result: a WAV file with its very samples, or another format that the engine can write.
import { encodeWav } from "./wav.js";

const find = (id) => document.getElementById(id);
const TITLES = { wav: "WAV", flac: "FLAC", mp3: "MP3", ogg: "Ogg" };

export class Download {
  #engine;
  #result = null; // {samples, rate, name, model}

  // onStatus(text), onProblem(text)
  constructor(engine, { onStatus, onProblem }) {
    this.#engine = engine;
    const formats = engine.formats ?? ["wav"];
    find("format").replaceChildren(...formats.map((format) => new Option(TITLES[format], format)));
    find("format").hidden = formats.length < 2;
    find("download").addEventListener("click", () => this.#save(onStatus, onProblem));
  }

  // name: of the recording; model: as the engine has it
  offer(samples, rate, name, model) {
    const stem = name.replace(/\.[^.]*$/, "");
    this.#result = { samples, rate, model, name: `${stem}_${model.name.replace(/^gomin_/, "")}` };
    find("save").hidden = false;
  }

  clear() {
    this.#result = null;
    find("save").hidden = true;
  }

  async #save(onStatus, onProblem) {
    const { samples, rate, model, name } = this.#result;
    const format = find("format").value;
    find("download").disabled = true;
    onProblem("");
    try {
      if (format !== "wav") onStatus(`Encoding ${TITLES[format]} …`);
      const file = format === "wav" ? encodeWav(samples, rate) : await this.#engine.encode(samples, rate, format, model);
      save(file, `${name}.${format}`);
      onStatus(`Saved as ${name}.${format}.`);
    } catch (error) {
      onStatus("");
      onProblem(error.message);
    } finally {
      find("download").disabled = false;
      find("download").focus();
    }
  }
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser reads it after the click
}
