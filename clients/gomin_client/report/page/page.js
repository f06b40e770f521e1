"use strict";

document.documentElement.classList.add("js");
const entries = document.getElementById("entries");
const distances = document.getElementById("distances");

// Sorting: the rows of the table, and the recordings below in the order of their first row.

function valueOf(row, column) {
  const text = row.cells[column].dataset.value;
  return row.cells[column].classList.contains("value") ? Number(text) : text;
}

function sortBy(heading) {
  const column = heading.cellIndex;
  const worstFirst = heading.dataset.better === "lower" && column > 0 ? "descending" : "ascending";
  const other = worstFirst === "descending" ? "ascending" : "descending";
  const order = heading.getAttribute("aria-sort") === worstFirst ? other : worstFirst;
  for (const each of heading.parentElement.cells) each.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const compare = (a, b) => typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a < b ? -1 : a > b ? 1 : 0;
  const body = distances.tBodies[0];
  const rows = Array.from(body.rows, (row) => [valueOf(row, column), row]);
  rows.sort(([a], [b]) => sign * compare(a, b));
  body.append(...rows.map(([, row]) => row));
  const keys = new Set(rows.map(([, row]) => row.dataset.entry));
  entries.append(...Array.from(keys, (key) => document.getElementById(key)));
}

for (const heading of distances?.tHead.rows[0].cells ?? []) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  button.addEventListener("click", () => sortBy(heading));
  heading.append(button);
}

// Filtering by name.

const filter = document.getElementById("filter");
filter?.addEventListener("input", () => {
  const wanted = filter.value.trim().toLowerCase();
  const shown = new Set();
  for (const row of distances.tBodies[0].rows) {
    row.hidden = !row.cells[0].dataset.value.toLowerCase().includes(wanted);
    if (!row.hidden) shown.add(row.dataset.entry);
  }
  for (const article of entries.children) article.hidden = !shown.has(article.id);
  document.getElementById("shown").value = wanted ? `${shown.size} of ${entries.children.length}` : "";
});

// Hearing: one sound at a time; another version of a recording goes on where the last one was.

let playing = null; // the player that was started last

function follow() {
  const article = playing.closest("article");
  article.style.setProperty("--at", String((100 * playing.currentTime) / Number(article.dataset.seconds)));
  if (!playing.paused) requestAnimationFrame(follow);
}

document.addEventListener("play", (event) => {
  const player = event.target;
  if (playing && playing !== player) {
    const goesOn = !playing.paused && playing.closest("article") === player.closest("article");
    if (goesOn) player.currentTime = playing.currentTime;
    playing.pause();
  }
  playing = player;
  document.querySelector(`input[value="${player.id}"]`).checked = true;
  follow();
}, true);

document.addEventListener("seeked", (event) => {
  if (event.target === playing) follow();
}, true);

document.addEventListener("change", (event) => {
  if (event.target.type !== "radio") return;
  const player = document.getElementById(event.target.value);
  if (playing && playing.paused && !playing.ended && playing.closest("article") === player.closest("article")) {
    player.currentTime = playing.currentTime;
  }
  player.play();
});

// A press on a picture plays its version from there.
entries?.addEventListener("click", (event) => {
  const picture = event.target.closest(".picture");
  if (!picture) return;
  const player = picture.closest("figure").querySelector("audio");
  const box = picture.getBoundingClientRect();
  const seconds = Number(picture.closest("article").dataset.seconds);
  if (playing && playing !== player) playing.pause();
  player.currentTime = ((event.clientX - box.left) / box.width) * seconds;
  player.play();
});
