"""Reports in a real browser: they load from a disk, play, switch, sort and filter, and ask no other host."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from gomin_client.report.build import compare_with_report
from tests.browser import Pages, chromium

SWITCH = """async () => {
  const [first, second] = document.querySelectorAll("article audio");
  first.playbackRate = 0.0625;  // it is not to end before the other takes over
  await first.play();
  first.currentTime = 0.2;
  await new Promise((seeked) => first.addEventListener("seeked", seeked, { once: true }));
  const moved = new Promise((seeked) => second.addEventListener("seeked", seeked, { once: true }));
  document.querySelectorAll("article input")[1].click();
  await moved;
  return [first.duration, second.duration, first.paused, second.currentTime >= 0.2,
          Number(second.closest("article").style.getPropertyValue("--at")) > 0];
}"""

SORTED = """() => {
  const heading = document.querySelectorAll("#distances thead th")[3];
  heading.querySelector("button").click();
  return [heading.getAttribute("aria-sort"),
          Array.from(document.querySelectorAll("#distances tbody tr"), (row) => Number(row.cells[3].dataset.value)),
          Array.from(document.querySelectorAll("#distances tbody tr"), (row) => row.dataset.entry),
          Array.from(document.querySelectorAll("article"), (article) => article.id)];
}"""

FILTERED = """() => {
  const filter = document.getElementById("filter");
  filter.value = "SUB";
  filter.dispatchEvent(new Event("input"));
  return [document.getElementById("shown").value,
          Array.from(document.querySelectorAll("article:not([hidden]) h3"), (name) => name.textContent)];
}"""

PICTURES = """Promise.all(Array.from(document.images, async (image) => {
  image.loading = "eager";
  await image.decode();
  return image.naturalWidth;
}))"""


# labels of the first picture's axes
AXES = """() => ["bands", "times"].map((axis) =>
  Array.from(document.querySelector(`.${axis}`).querySelectorAll("text"), (label) => label.textContent))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.mark.parametrize("report", ["report.html", "report"])
def test_a_report_works(browser: Browser, folders: Path, report: str) -> None:
    compare_with_report(Path(report), Path("in"), Path("bad"))
    file = folders / report if report.endswith(".html") else folders / report / "index.html"

    with Pages(browser) as pages:
        page = pages.open(file.as_uri())
        assert all(width > 0 for width in page.evaluate(PICTURES))
        bands, times = page.evaluate(AXES)
        assert bands == ["100 Hz", "500 Hz", "1 kHz", "2 kHz", "4 kHz", "8 kHz"]
        assert times == ["0 s", "0.2 s", "0.4 s", "0.6 s"]
        assert page.evaluate(SWITCH) == [pytest.approx(0.75, abs=1e-3), pytest.approx(0.75, abs=1e-3), True, True, True]
        order, snr, rows, articles = page.evaluate(SORTED)
        assert (order, rows) == ("descending", articles)
        assert snr == sorted(snr, reverse=True)
        assert page.evaluate(FILTERED) == ["1 of 3", ["sub/c"]]
    expected = {file.as_uri()} | {path.as_uri() for path in (folders / report).rglob("*.*") if report == "report"}
    assert file.as_uri() in pages.requests
    assert set(pages.requests) <= expected
