// The files that an engine in the browser needs: checked, with progress.
import { EngineError } from "../errors.js";

// Loads the files of a catalogue: {file, bytes, sha256}, file relative to `base`.
export class Downloads {
  #base;
  #onLoading;
  #loaded = 0;
  #total = 0;

  // onLoading({loaded, total}): bytes of what is being loaded at present
  constructor(base, onLoading) {
    this.#base = base;
    this.#onLoading = onLoading;
  }

  // All bytes of some files, in order, loaded side by side.
  async all(entries, signal) {
    this.#loaded = 0;
    this.#total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
    return Promise.all(entries.map((entry) => this.#load(entry, signal)));
  }

  async #load(entry, signal) {
    const content = reserve(entry);
    const response = await this.#ask(entry, signal);
    const reader = response.body.getReader();
    let at = 0;
    for (;;) {
      const { done, value } = await this.#read(reader, entry);
      if (done) break;
      if (at + value.length > content.length) throw damaged(entry);
      content.set(value, at);
      at += value.length;
      this.#loaded += value.length;
      this.#onLoading({ loaded: this.#loaded, total: this.#total });
    }
    if (at !== content.length || !(await hasHash(content, entry.sha256))) throw damaged(entry);
    return content;
  }

  async #ask({ file }, signal) {
    let response;
    try {
      response = await fetch(new URL(file, this.#base), { signal });
    } catch (error) {
      throw lost(file, error);
    }
    if (!response.ok) {
      throw new EngineError(
        `${file} cannot be loaded: the host answered with status ${response.status}. Reload the page; if that does not ` +
          "help, the folder of this page is not complete",
        "unreachable",
      );
    }
    return response;
  }

  async #read(reader, { file }) {
    try {
      return await reader.read();
    } catch (error) {
      throw lost(file, error);
    }
  }
}

function reserve({ file, bytes }) {
  try {
    return new Uint8Array(bytes);
  } catch {
    throw tooLarge(file, bytes);
  }
}

export function tooLarge(what, bytes) {
  const size = bytes === undefined ? "" : ` (${megabytes(bytes)})`;
  return new EngineError(
    `${what}${size} needs more memory than the browser gives to a page: use a smaller model, another computer, or a gateway`,
    "too-large",
  );
}

export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

// Browsers offer hashes to pages from https:// or localhost only; elsewhere the number of bytes is all that is checked.
async function hasHash(content, sha256) {
  if (!globalThis.crypto?.subtle) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
}

function lost(file, error) {
  if (error.name === "AbortError") return error;
  return new EngineError(`${file} cannot be loaded: the connection was lost; try again`, "unreachable");
}

function damaged({ file }) {
  return new EngineError(
    `${file} is damaged: it is not the file that gomin-gateway --static wrote. Reload the page; if that does not help, ` +
      "copy the folder to its host again",
    "damaged",
  );
}
