import { ORIGINAL, Player, RECONSTRUCTION } from "./player.js";
import { Download } from "./download.js";
import { Engine } from "./engine.js";
import { Listening } from "./listening.js";
import { Settings } from "./settings.js";
import { Sound } from "./sound.js";
import { Stepping } from "./stepping.js";

const find = (id) => document.getElementById(id);

const engine = new Engine();
const player = new Player();
const settings = new Settings(Boolean(engine.reconstructSteps));
const listening = new Listening(player);
const download = new Download(engine, { onStatus: showStatus, onProblem: showProblem });
const stepping = new Stepping(engine, { onStep: stepped, onMel: (mel) => listening.showStep(mel) });
const sound = new Sound({ onChosen: showChosen, onProblem: showProblem });
let running = null; // the AbortController of the work in progress

for (const element of document.querySelectorAll("[data-engine]")) {
  element.hidden = element.dataset.engine !== engine.kind;
}

engine.onLoading = ({ loaded, total }) => {
  find("progress").value = loaded / total;
  showStatus(`Loading the model: ${(loaded / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`);
};

// What a script may read: the player has the samples.
globalThis.gomin = { player };

async function start() {
  const fragment = location.hash.slice(1);
  const refused = await loadModels(fragment);
  const example = new URLSearchParams(fragment).get("example");
  if (example) await sound.takeExample(example);
  if (refused.length) showProblem(refused.join(" "));
}

async function loadModels(fragment) {
  find("again").hidden = true;
  try {
    const models = await engine.models();
    find("key-form").hidden = !engine.key;
    const refused = settings.offer(models, fragment);
    find("device-field").hidden = engine.devices.length < 2;
    find("engine-note").textContent = engine.description;
    ready();
    return refused;
  } catch (error) {
    if (error.kind === "unauthorized") {
      find("key-form").hidden = false;
      const wrong = engine.key !== "";
      engine.key = "";
      return wrong ? [error.message] : [];
    }
    find("again").hidden = false;
    return [error.message];
  }
}

function ready() {
  find("run").disabled = Boolean(running) || !(sound.file && settings.model);
}

function showChosen(text) {
  find("chosen").textContent = text;
  showProblem("");
  ready();
}

function showProblem(text) {
  find("problem").textContent = text;
  find("problem").hidden = !text;
}

function showStatus(text) {
  find("status").textContent = text;
}

find("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  engine.key = find("key").value.trim();
  find("key").value = "";
  showProblem((await loadModels(location.hash.slice(1))).join(" "));
});

find("again").addEventListener("click", async () => {
  showProblem((await loadModels(location.hash.slice(1))).join(" "));
});

find("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running && sound.file && settings.model) run();
});

find("device").addEventListener("change", ({ target }) => { engine.device = target.value; });

find("cancel").addEventListener("click", () => running?.abort());

find("link").addEventListener("click", async () => {
  const fragment = new URLSearchParams(settings.fragment);
  if (sound.example) fragment.set("example", sound.example);
  history.replaceState(null, "", `#${fragment}`);
  try {
    await navigator.clipboard.writeText(location.href);
    showStatus("The link is in the clipboard.");
  } catch {
    showStatus("The address bar has the link.");
  }
});

// From the sound to everything that is shown of it.
async function run() {
  running = new AbortController();
  const { signal } = running;
  const { model, values } = settings;
  const { file } = sound;
  begin();
  try {
    showStatus("Reading the sound …");
    const original = await engine.original(file, model, signal);
    player.load(original.samples, original.rate);
    original.mel = await engine.mel(original.samples, original.rate, model, signal);
    listening.showOriginal(original.mel, model);
    showStatus("Computing …");
    find("progress").value = 0;
    const made = settings.showsSteps
      ? await stepping.run(file, values, model, signal)
      : await engine.reconstruct(file, values, model, arrived, signal);
    player.finish();
    download.offer(player.samples, made.rate, file.name, model);
    showStatus("Comparing …");
    made.mel = await engine.mel(player.samples, made.rate, model, signal);
    await listening.showComparison(original, made, signal);
    showStatus(`Done: ${(made.samples.length / made.rate).toFixed(2)} s of audio.`);
  } catch (error) {
    if (error.name === "AbortError") showStatus("Cancelled.");
    else {
      showStatus("");
      showProblem(error.message);
    }
  } finally {
    if (!player.complete) player.finish();
    running = null;
    find("cancel").hidden = true;
    find("progress").hidden = true;
    find("settings").removeAttribute("aria-busy");
    ready();
  }
}

function begin() {
  player.pause();
  showProblem("");
  listening.clear();
  download.clear();
  find("run").disabled = true;
  find("cancel").hidden = false;
  find("progress").hidden = false;
  find("progress").value = 0;
  find("settings").setAttribute("aria-busy", "true");
}

// Called with each part of the reconstruction.
function arrived(part) {
  const isFirst = player.available === 0;
  player.append(part);
  find("progress").value = player.available / player.length;
  showStatus(`Computing: ${Math.floor(player.available / player.rate)} of ${Math.ceil(player.length / player.rate)} s`);
  if (isFirst && find("early").checked) player.play();
}

// Called with each step of a chain that is shown step by step.
function stepped({ step, steps, samples }) {
  const isFirst = player.available === 0;
  player.replace(samples);
  find("progress").value = step / steps;
  showStatus(`Computing: step ${step} of ${steps}`);
  if (isFirst && find("early").checked) player.play();
}

document.addEventListener("keydown", (event) => {
  const isTaken = event.target.closest("input:not([type=range]), select, textarea, button, a");
  if (event.ctrlKey || event.metaKey || event.altKey || find("result").hidden) return;
  if (event.key === " " && !isTaken) {
    event.preventDefault();
    listening.togglePlay();
  } else if (event.key.toLowerCase() === "x" && !event.target.closest("input:not([type=range]), select")) {
    player.side = player.side === ORIGINAL ? RECONSTRUCTION : ORIGINAL;
  }
});

start();
