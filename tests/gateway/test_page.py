"""The page in a real browser, with a real gateway and a real server behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from gomin_client import Vocoder
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.tools.compare import compare_paths
from gomin_gateway.page import WEB
from gomin_gateway.settings import ApiKeys
from tests.gateway.running import WAIT_S, Gated, Gateway, running
from tests.gateway.test_answers import wav
from tests.support import EXAMPLES, RunningServer, tool

CROW = EXAMPLES[0]
WAIT_MS = WAIT_S * 1000
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = tool("chromium")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        # any other host cannot even be looked up
        arguments.append("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
        made = playwright.chromium.launch(executable_path=path, args=arguments)
        yield made
        made.close()


@contextmanager
def opening(browser: Browser) -> Iterator[Open]:
    """Opens the page of a gateway; at the end, it has asked no other host, and nothing went wrong inside."""
    wrong: list[str] = []

    def opened(gateway: Gateway, fragment: str = "", **settings: object) -> Page:
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda request: asked(gateway, request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: complained(message.type, message.text))
        page.goto(f"{gateway.url}/#{fragment}")
        return page

    def asked(gateway: Gateway, url: str) -> None:
        if not url.startswith((f"{gateway.url}/", "blob:", "data:")):
            wrong.append(f"asks {url}")

    def complained(kind: str, text: str) -> None:
        if kind in ("error", "warning") and "Failed to load resource" not in text:
            wrong.append(text)

    contexts: list = []
    try:
        yield opened
    finally:
        for context in contexts:
            context.close()
    assert not wrong


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    with opening(browser) as opened:
        yield opened


def until(page: Page, condition: str) -> None:
    """Wait for a condition in the page, whose policy forbids what Playwright's `wait_for_function` does."""
    page.evaluate(
        f"""async () => {{
          const end = Date.now() + {WAIT_MS};
          while (!({condition})) {{
            if (Date.now() > end) throw new Error("it has not happened");
            await new Promise((resolve) => setTimeout(resolve, 20));
          }}
        }}"""
    )


def reconstruct(page: Page) -> np.ndarray:
    """Press the button, wait for the whole result, and return its samples."""
    page.get_by_role("button", name="Reconstruct", exact=True).click()
    expect(page.locator("#distances")).to_be_visible(timeout=WAIT_MS)
    return np.array(page.evaluate("Array.from(gomin.player.samples)"), np.float32)


def test_a_file_becomes_what_the_client_makes_of_it(
    open_page: Open, gateway: Gateway, server: RunningServer, tmp_path: Path
) -> None:
    page = open_page(gateway)
    page.get_by_label("Choose a file").set_input_files(CROW)
    found = reconstruct(page)
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download").click()
    downloading.value.save_as(tmp_path / "a.wav")
    downloaded, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")

    with Vocoder(server.grpc) as vocoder:
        wave, original_rate = soundfile.read(CROW, dtype="float32")
        expected = vocoder.reconstruct(wave, original_rate)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert (downloading.value.suggested_filename, rate) == ("crow_gan.wav", 24000)
    np.testing.assert_array_equal(downloaded, found)

    (compared,) = compare_paths(CROW, tmp_path / "a.wav")
    for name in ("log_mel_l1_db", "spectral_convergence", "log_magnitude_l1", "snr_db"):
        shown = float(page.locator(f"[data-distance={name}]").get_attribute("data-value"))
        assert shown == pytest.approx(getattr(compared.distance, name), rel=1e-3), name
    for name in ("original", "reconstruction", "difference"):
        colours = page.evaluate(
            """id => { const canvas = document.getElementById(id);
              return [canvas.width, canvas.height, new Set(new Uint32Array(
                canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size] }""",
            f"mel-{name}",
        )
        assert colours[:2] == [len(found) // 256 + 1, 128]
        assert colours[2] > 50


def test_a_link_has_the_settings(open_page: Open, gateway: Gateway, server: RunningServer) -> None:
    fragment = "model=gomin_diffusion&sampler=ddim&steps=2&schedule=cosine&eta=0.5&seed=7&example=crow"
    page = open_page(gateway, fragment)
    expect(page.get_by_label("Seed")).to_have_value("7", timeout=WAIT_MS)
    expect(page.locator("#chosen")).to_contain_text("crow.flac", timeout=WAIT_MS)
    found = reconstruct(page)

    wave, rate = soundfile.read(CROW, dtype="float32")
    settings = SamplerSettings("ddim", 2, "cosine", 0.5)
    with Vocoder(server.grpc, model="diffusion", sampling=settings) as vocoder:
        np.testing.assert_allclose(found, vocoder.reconstruct(wave, rate, seed=7), rtol=0, atol=1e-4)
    expect(page.locator("#made")).to_contain_text("seed 7")
    page.get_by_label("Steps").fill("3")
    page.get_by_role("button", name="Copy a link").click()
    expect(page.locator("#status")).to_contain_text("link")
    assert page.url.partition("#")[2] == fragment.replace("steps=2", "steps=3")


def test_a_link_that_asks_for_an_unknown_model(open_page: Open, gateway: Gateway) -> None:
    page = open_page(gateway, "model=nobody")
    expect(page.get_by_role("alert")).to_contain_text("“nobody”, which is not offered", timeout=WAIT_MS)


def test_a_problem_is_shown_in_the_words_of_the_gateway(open_page: Open, gateway: Gateway) -> None:
    page = open_page(gateway)
    page.get_by_label("Choose a file").set_input_files({"name": "a.wav", "mimeType": "", "buffer": b"not a sound"})
    page.get_by_role("button", name="Reconstruct", exact=True).click()

    detail = gateway.post("/v1/reconstruct", b"not a sound").json["detail"]
    expect(page.get_by_role("alert")).to_have_text(detail, timeout=WAIT_MS)
    expect(page.locator("#result")).to_be_hidden()
    page.get_by_role("button", name="a crow").click()
    expect(page.get_by_role("alert")).to_be_hidden(timeout=WAIT_MS)
    reconstruct(page)


def test_audio_begins_while_it_is_computed_and_can_be_cancelled(open_page: Open, tmp_path: Path) -> None:
    (tmp_path / "long.wav").write_bytes(wav(10))
    model = Gated(max_frames=256)
    try:
        with running(model.transport) as gateway:
            page = open_page(gateway)
            page.get_by_label("Choose a file").set_input_files(tmp_path / "long.wav")
            model.let(1)
            page.get_by_role("button", name="Reconstruct", exact=True).click()
            until(page, "gomin.player.playing && gomin.player.position > 0")
            assert page.evaluate("gomin.player.available < gomin.player.length && !gomin.player.complete")
            expect(page.get_by_role("progressbar")).to_be_visible()
            expect(page.get_by_role("link", name="Download")).to_be_hidden()
            page.get_by_role("button", name="Cancel").click()
            expect(page.locator("#status")).to_have_text("Cancelled.")
            until(page, "!gomin.player.playing")  # it plays what there is, and ends
            expect(page.get_by_role("button", name="Reconstruct", exact=True)).to_be_enabled()
            model.let_all()
            gateway.wait_until_idle()
            assert reconstruct(page).shape == (240_000,)
    finally:
        model.let_all()


# Renders the player without a sound card: from sample 2000, original, then from 0.2 s on the reconstruction.
RENDERED = """async () => {
  const { Player } = await import("/player.js");
  const context = new OfflineAudioContext(1, 12000, 24000);
  const player = new Player(() => context);
  const ramp = Float32Array.from({ length: 24000 }, (_, i) => i / 24000);
  player.load(ramp, 24000);
  player.side = "original";
  for (let i = 0; i < 24000; i += 4000) player.append(ramp.subarray(i, i + 4000).map((value) => -value));
  player.finish();
  player.seek(2000);
  await player.play();
  context.suspend(0.2).then(() => { player.side = "reconstruction"; context.resume(); });
  return Array.from((await context.startRendering()).getChannelData(0));
}"""


def test_both_are_rendered_at_the_same_position(open_page: Open, gateway: Gateway) -> None:
    heard = np.array(open_page(gateway).evaluate(RENDERED))

    first = 1200  # samples until the audio begins, `LEAD_S`
    expected = (2000 + np.arange(12000 - first)) / 24000
    np.testing.assert_array_equal(heard[:first], 0)
    np.testing.assert_allclose(heard[first:4700], expected[: 4700 - first], rtol=0, atol=1e-6)
    np.testing.assert_allclose(heard[8000:], -expected[8000 - first :], rtol=0, atol=1e-4)


# While it plays: the position before and after a switch.
SWITCHED = """async () => {
  const { player } = gomin;
  player.seek(0);
  await player.play();
  while (player.position === 0) await new Promise((resolve) => setTimeout(resolve));
  const before = player.position;
  player.side = "original";
  return [before, player.position];
}"""


def test_the_switch_keeps_the_position(open_page: Open, gateway: Gateway) -> None:
    page = open_page(gateway, "example=crow")
    expect(page.locator("#chosen")).to_contain_text("crow.flac", timeout=WAIT_MS)
    page.get_by_label("Play while it is being computed").uncheck()
    reconstruct(page)
    switch = page.get_by_role("switch")
    state = "[gomin.player.position, gomin.player.playing, gomin.player.side]"
    page.locator(".plot").first.click(position={"x": 1, "y": 5})
    began, playing, side = page.evaluate(state)
    assert (playing, side) == (False, "reconstruction")
    assert 0 < began < 2000

    switch.click()
    assert page.evaluate(state) == [began, False, "original"]
    expect(switch).to_have_attribute("aria-checked", "false")
    page.keyboard.press("x")
    assert page.evaluate(state) == [began, False, "reconstruction"]

    page.get_by_role("button", name="Play").click()
    until(page, "gomin.player.position === gomin.player.length && !gomin.player.playing")
    before, after = page.evaluate(SWITCHED)
    assert 0 <= after - before < 2400  # no jump: the clock goes on
    page.locator("#seek").focus()
    page.keyboard.press("End")
    until(page, "!gomin.player.playing")
    assert page.evaluate("gomin.player.position === gomin.player.length")


def test_a_recording(open_page: Open, gateway: Gateway) -> None:
    page = open_page(gateway)
    page.get_by_role("button", name="Record").click()
    until(page, "/Stop .[1-9]/.test(record.textContent) && (record.click(), true)")
    expect(page.locator("#chosen")).to_contain_text("recording.wav", timeout=WAIT_MS)
    found = reconstruct(page)

    original = np.array(page.evaluate("Array.from(gomin.player.original)"))
    assert len(found) == len(original) > 12_000
    assert np.abs(original).max() > 0.01, "the fake microphone beeps"


def test_a_key_is_kept_for_the_tab_only(open_page: Open) -> None:
    model = Gated()
    model.let_all()
    with running(model.transport, keys=ApiKeys(["right"])) as gateway:
        page = open_page(gateway)
        for key in ("wrong", "right"):
            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Use this key").click()
            if key == "wrong":
                expect(page.get_by_role("alert")).to_have_text("the API key is not known", timeout=WAIT_MS)
        expect(page.get_by_role("combobox", name="Model")).to_have_value("gomin_gan", timeout=WAIT_MS)
        page.get_by_role("button", name="a crow").click()
        assert reconstruct(page).shape == (11_536,)
        assert page.evaluate("[localStorage.length, document.cookie, Object.values(sessionStorage)]") == [
            0,
            "",
            ["right"],
        ]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_people_who_see_or_hear_less_can_use_it(open_page: Open, gateway: Gateway, theme: str) -> None:
    page = open_page(
        gateway,
        "model=gomin_diffusion&sampler=ddim&steps=1&example=crow",
        color_scheme=theme,
        reduced_motion="reduce",
        viewport={"width": 360, "height": 740},
    )
    expect(page.locator("#chosen")).to_contain_text("crow.flac", timeout=WAIT_MS)
    reconstruct(page)

    found = Axe().run(page).response["violations"]
    assert not [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found]
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_the_policy_of_the_page(gateway: Gateway) -> None:
    for path in ("/", "/main.js", "/style.css"):
        headers = gateway.call("GET", path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["content-security-policy"]


def test_the_examples_are_those_of_the_repository() -> None:
    for example in (WEB / "examples").iterdir():
        assert example.read_bytes() == (CROW.parent / example.name).read_bytes()
