"""Reports in a real browser: they load from a disk, play, switch, sort and filter, and ask no other host."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gomin_client.report.build import compare_with_report
from tests.client.report.browser import Browser

SWITCH = """(async () => {
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
})()"""

SORTED = """(() => {
  const heading = document.querySelectorAll("#distances thead th")[3];
  heading.querySelector("button").click();
  return [heading.getAttribute("aria-sort"),
          Array.from(document.querySelectorAll("#distances tbody tr"), (row) => Number(row.cells[3].dataset.value)),
          Array.from(document.querySelectorAll("#distances tbody tr"), (row) => row.dataset.entry),
          Array.from(document.querySelectorAll("article"), (article) => article.id)];
})()"""

FILTERED = """(() => {
  const filter = document.getElementById("filter");
  filter.value = "SUB";
  filter.dispatchEvent(new Event("input"));
  return [document.getElementById("shown").value,
          Array.from(document.querySelectorAll("article:not([hidden]) h3"), (name) => name.textContent)];
})()"""

PICTURES = """Promise.all(Array.from(document.images, async (image) => {
  image.loading = "eager";
  await image.decode();
  return image.naturalWidth;
}))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.mark.parametrize("report", ["report.html", "report"])
def test_a_report_works(browser: Browser, folders: Path, report: str) -> None:
    compare_with_report(Path(report), Path("in"), Path("bad"))
    page = folders / report if report.endswith(".html") else folders / report / "index.html"
    browser.requests.clear()

    browser.open(page.as_uri())

    assert all(width > 0 for width in browser.run(PICTURES))
    assert browser.run(SWITCH) == [pytest.approx(0.75, abs=0.001), pytest.approx(0.75, abs=0.001), True, True, True]
    order, snr, rows, articles = browser.run(SORTED)
    assert (order, rows) == ("descending", articles)
    assert snr == sorted(snr, reverse=True)
    assert browser.run(FILTERED) == ["1 of 3", ["sub/c"]]
    assert browser.console == []
    files = {address for address in browser.requests if not address.startswith("data:")}
    expected = {page.as_uri()} | {path.as_uri() for path in (folders / report).rglob("*.*") if report == "report"}
    assert page.as_uri() in files <= expected
