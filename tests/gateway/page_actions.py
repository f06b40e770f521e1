"""What tests do with the page, and what they look up in it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from gomin_client.mel.features import MelConfig, band_edges, mel_spectrogram
from tests.browser import WAIT_MS


def choose(page: Page, name: str, content: bytes) -> None:
    page.get_by_label("Choose a file").set_input_files({"name": name, "mimeType": "", "buffer": content})


def reconstruct(page: Page) -> np.ndarray:
    """Press the button, wait for the whole result, and return its samples."""
    page.get_by_role("button", name="Reconstruct", exact=True).click()
    expect(page.locator("#distances")).to_be_visible(timeout=WAIT_MS)
    return np.array(page.evaluate("Array.from(gomin.player.samples)"), np.float32)


def assert_axes_and_values(page: Page, original: np.ndarray, reconstruction: np.ndarray) -> None:
    """The labels are where their frequencies and seconds are, and the pointer shows the values of both mels there."""
    box = page.locator(".plot").nth(1).bounding_box()
    bands = page.locator(".bands").nth(1).locator("span")
    assert bands.all_inner_texts() == ["100 Hz", "500 Hz", "1 kHz", "2 kHz", "4 kHz", "8 kHz"]
    centres = band_edges(MelConfig())[1:-1]
    for hertz, label in zip((100, 500, 1000, 2000, 4000, 8000), bands.all(), strict=True):
        middle = label.bounding_box()["y"] + label.bounding_box()["height"] / 2
        band = np.interp(hertz, centres, np.arange(128))
        assert middle == pytest.approx(box["y"] + box["height"] * (1 - (band + 0.5) / 128), abs=1), hertz
    times = page.locator("#times span")
    assert times.all_inner_texts() == ["0 s", "0.1 s", "0.2 s", "0.3 s", "0.4 s"]
    for index, label in enumerate(times.all()[1:], 1):
        middle = label.bounding_box()["x"] + label.bounding_box()["width"] / 2
        assert middle == pytest.approx(box["x"] + box["width"] * 0.1 * index / (len(original) / 24000), abs=1)

    values = [page.locator(f"#value-{name}") for name in ("place", "original", "reconstruction", "difference")]
    mels = [mel_spectrogram(wave, MelConfig()) for wave in (original, reconstruction)]
    frames = mels[0].shape[1]
    frame, band = frames // 2, 100
    place = {"x": (frame + 0.5) / frames * box["width"], "y": (1 - (band + 0.5) / 128) * box["height"]}
    page.locator(".plot").nth(1).hover(position=place)
    seconds, hertz = values[0].inner_text().removesuffix(" kHz").split(" s, ")
    assert float(seconds) == pytest.approx(frame * 256 / 24000, abs=256 / 24000)
    assert float(hertz) == pytest.approx(centres[band] / 1000, abs=0.0051)
    levels = [100 * (mel[band, frame] - 1) for mel in mels]
    for value, level in zip(values[1:], [*levels, levels[1] - levels[0]], strict=True):
        assert float(value.inner_text().removesuffix(" dB").replace("−", "-")) == pytest.approx(level, abs=0.11)


def dropped(page: Page, *paths: Path) -> None:
    """Drop files of the disk on the page, as a file manager does."""
    box = page.locator("#drop").bounding_box()
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"x": box["x"] + 5, "y": box["y"] + 5}
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
        if kind == "dragOver":
            expect(page.locator("#drop.over")).to_be_visible()
    session.detach()


def tab_to(page: Page, name: str) -> None:
    """Press Tab until the element has the focus, which must be visible."""
    for _ in range(40):
        page.keyboard.press("Tab")
        found, outline = page.evaluate("""() => {
          const element = document.activeElement;
          const shown = element.id === "file" ? element.nextElementSibling : element;
          return [element.id || element.dataset.example || element.tagName, getComputedStyle(shown).outlineStyle];
        }""")
        assert found == "BODY" or outline != "none", f"the focus on {found} cannot be seen"
        if found == name:
            return
    raise AssertionError(f"no way to {name}")


# In the page: what its modules make of inputs. Playwright takes a second for lists of 100 000 numbers.
PACKING = """
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const unpack = (text) => new Float32Array(bytesOf(text).buffer);
const pack = (values) => {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
};
"""


def pack(content: bytes | np.ndarray) -> str:
    return base64.b64encode(content).decode()


def unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.float32)


def inside(page: Page, function: str, given: object) -> Any:
    """Call a function in the page."""
    return page.evaluate(f"(given) => {{ {PACKING} return ({function})(given); }}", given)
