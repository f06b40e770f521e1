"""The page in a real browser, with a real gateway and a real server behind it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Route, expect

from gomin_client import Vocoder
from gomin_client.mel.features import MelConfig
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.tools.compare import compare_paths, read_mono
from gomin_gateway.page import WEB
from gomin_gateway.settings import ApiKeys
from tests.browser import WAIT_MS, Pages, chromium, until
from tests.gateway.page_actions import assert_axes_and_values, dropped, reconstruct, tab_to
from tests.gateway.running import Gated, Gateway, running
from tests.gateway.test_answers import wav
from tests.support import EXAMPLES, RunningServer

CROW = EXAMPLES[0]
DISTANCES = ("log_mel_l1_db", "spectral_convergence", "log_magnitude_l1", "snr_db")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def pages(browser: Browser) -> Iterator[Pages]:
    with Pages(browser) as opened:
        yield opened


def test_a_file_becomes_what_the_client_makes_of_it(
    pages: Pages, gateway: Gateway, server: RunningServer, tmp_path: Path
) -> None:
    page = pages.open(gateway.url)
    page.get_by_label("Choose a file").set_input_files(CROW)
    found = reconstruct(page)

    with Vocoder(server.grpc) as vocoder:
        wave, original_rate = soundfile.read(CROW, dtype="float32")
        expected = vocoder.reconstruct(wave, original_rate)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    for kind, subtype, atol in (("wav", "FLOAT", 0), ("flac", "PCM_24", 2**-23), ("mp3", "", 0.2), ("ogg", "", 0.2)):
        page.get_by_label("Format of the download").select_option(kind)
        with page.expect_download() as downloading:
            page.get_by_role("button", name="Download").click()
        file = tmp_path / downloading.value.suggested_filename
        downloading.value.save_as(file)
        downloaded, rate = soundfile.read(file, dtype="float32")
        assert (file.name, rate) == (f"crow_gan.{kind}", 24000)
        assert soundfile.info(file).subtype == subtype or not subtype
        np.testing.assert_allclose(downloaded[: len(found)], found, rtol=0, atol=atol)
        expect(page.locator("#status")).to_have_text(f"Saved as crow_gan.{kind}.")

    (compared,) = compare_paths(CROW, tmp_path / "crow_gan.wav")
    for name in DISTANCES:
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
    assert_axes_and_values(page, *(read_mono(path, MelConfig()) for path in (CROW, tmp_path / "crow_gan.wav")))


def test_dropped_files(pages: Pages, gateway: Gateway, tmp_path: Path) -> None:
    page = pages.open(gateway.url)
    dropped(page, CROW)
    expect(page.locator("#chosen")).to_have_text("crow.flac, 16 kB")
    expect(page.get_by_role("button", name="Reconstruct", exact=True)).to_be_enabled(timeout=WAIT_MS)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "notes.txt").write_text("no sound")
    for paths, words in (
        ([tmp_path], "That is a folder. Drop one recording."),
        ([CROW, tmp_path / "notes.txt"], "Those are 2 files. Drop one recording."),
        ([tmp_path / "empty.wav"], "empty.wav is empty."),
        ([tmp_path / "notes.txt"], "notes.txt is not a sound (text/plain)."),
    ):
        dropped(page, *paths)
        expect(page.get_by_role("alert")).to_contain_text(words)
        expect(page.locator("#chosen")).to_have_text("crow.flac, 16 kB")
    assert page.evaluate("""() => {
      const data = new DataTransfer();
      data.setData("text/plain", "words");
      const drop = new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: data });
      return !document.body.dispatchEvent(drop);
    }"""), "the browser must not open it"
    expect(page.get_by_role("alert")).to_contain_text("That is not a file.")
    dropped(page, CROW)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_the_first_paint_needs_the_document_and_its_style_only(
    pages: Pages, gateway: Gateway, record_property: pytest.RecordProperty
) -> None:
    page = pages.new()
    held: list[Route] = []
    page.route("**/*.js", lambda route: held.append(route))
    pages.open(gateway.url, page, wait_until="commit")
    until(page, 'performance.getEntriesByName("first-contentful-paint").length')

    expect(page.get_by_role("heading", name="GOMIN")).to_be_visible()
    paths = {address.removeprefix(gateway.url) for address in pages.requests}
    assert {"/", "/style.css"} <= paths <= {"/", "/style.css", "/icon.svg", "/main.js"}
    assert sum(len(gateway.call("GET", path).body) for path in ("/", "/style.css")) < 24_000
    for route in held:
        route.continue_()
    page.unroute("**/*.js")
    expect(page.locator("#model")).to_be_enabled(timeout=WAIT_MS)

    page.reload()
    until(page, 'performance.getEntriesByName("first-contentful-paint").length')
    paint = page.evaluate('performance.getEntriesByName("first-contentful-paint")[0].startTime')
    record_property("first_contentful_paint_ms", paint)  # for the report of a run; no bound: it depends on the machine
    blocking = """performance.getEntriesByType("resource").filter((entry) => entry.renderBlockingStatus === "blocking")
      .map(({ name }) => new URL(name).pathname)"""
    assert page.evaluate(blocking) == ["/style.css"]


def test_a_link_has_the_settings(pages: Pages, gateway: Gateway, server: RunningServer) -> None:
    fragment = "model=gomin_diffusion&sampler=ddim&steps=2&schedule=cosine&eta=0.5&seed=7&example=crow"
    page = pages.open(f"{gateway.url}/#{fragment}")
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


@pytest.mark.slow
def test_audio_begins_while_it_is_computed_and_can_be_cancelled(pages: Pages, tmp_path: Path) -> None:
    (tmp_path / "long.wav").write_bytes(wav(10))
    model = Gated(max_frames=256)
    try:
        with running(model.transport) as gateway:
            page = pages.open(gateway.url)
            page.get_by_label("Choose a file").set_input_files(tmp_path / "long.wav")
            model.let(1)
            page.get_by_role("button", name="Reconstruct", exact=True).click()
            until(page, "gomin.player.playing && gomin.player.position > 0")
            assert page.evaluate("gomin.player.available < gomin.player.length && !gomin.player.complete")
            expect(page.get_by_role("progressbar")).to_be_visible()
            expect(page.get_by_role("button", name="Download")).to_be_hidden()
            page.get_by_label("Choose a file").set_input_files(CROW)  # another choice does not begin another result
            expect(page.locator("#chosen")).to_contain_text("crow.flac")
            assert page.get_by_role("button", name="Reconstruct", exact=True).is_disabled()
            page.get_by_label("Choose a file").set_input_files(tmp_path / "long.wav")
            page.get_by_role("button", name="Cancel").click()
            expect(page.locator("#status")).to_have_text("Cancelled.")
            until(page, "!gomin.player.playing")  # it plays what there is, and ends
            expect(page.get_by_role("button", name="Reconstruct", exact=True)).to_be_enabled()
            model.let_all()
            gateway.wait_until_idle()
            assert reconstruct(page).shape == (240_000,)
    finally:
        model.let_all()


# Renders the player without a sound card: three minutes, which arrive in 40 parts while they are played. Every sample
# has a value of its own, and the reconstruction is the negative of the original. -> where what is heard is neither,
# where it is on the way from one to the other, and what is held for the audio thread.
RENDERED = """async () => {
  const { Player } = await import("/player.js");
  const rate = 24000, length = 180 * rate, lead = 1200, first = 2000;
  const rest = 12000; // an offline context on a busy machine may leave its last blocks empty
  const context = new OfflineAudioContext(1, length - first + lead + rest, rate);
  const sizes = [];
  const make = context.createBuffer.bind(context);
  context.createBuffer = (...settings) => { sizes.push(settings[1]); return make(...settings); };
  const player = new Player(() => context);
  const value = (i) => 0.25 + ((i * 7919) % 65521) / 131042;
  player.load(Float32Array.from({ length }, (_, i) => value(i)), rate);
  player.side = "original";
  let at = 0;
  const arrive = () => {
    const end = Math.min(length, at + 110003);
    player.append(Float32Array.from({ length: end - at }, (_, i) => -value(at + i)));
    at = end;
    if (at === length && !player.complete) player.finish();
  };
  arrive();
  arrive();
  player.seek(first);
  await player.play();
  for (let seconds = 4; seconds < 178; seconds += 4) {
    context.suspend(seconds).then(async () => {
      arrive();
      if (seconds === 92) player.side = "reconstruction";
      await new Promise((resolve) => setTimeout(resolve));
      context.resume();
    });
  }
  const heard = (await context.startRendering()).getChannelData(0);
  const far = [], between = [];
  for (let i = 0; i < heard.length - rest; i++) {
    const expected = i < lead ? 0 : value(first + i - lead);
    const share = i < lead ? 0 : heard[i] / expected; // 1: original, -1: reconstruction
    if (i < lead ? heard[i] !== 0 : Math.abs(share) > 1 + 1e-5) far.push(i);
    else if (i >= lead && Math.abs(share - (i < 92 * rate ? 1 : -1)) > 1e-4) between.push([i, share]);
  }
  return { far: far.slice(0, 5), between: between.slice(0, 5000), longest: Math.max(...sizes) / rate, at };
}"""


def test_long_audio_has_no_gap_and_a_switch_keeps_the_sample(pages: Pages, gateway: Gateway) -> None:
    heard = pages.open(gateway.url).evaluate(RENDERED)

    assert (heard["far"], heard["at"]) == ([], 180 * 24000)
    places, shares = zip(*heard["between"], strict=True)
    # one crossfade, without a jump: at every sample a mixture of the same sample of both
    assert places == tuple(range(92 * 24000, 92 * 24000 + len(places)))
    assert len(places) < 0.1 * 24000
    assert all(earlier >= later - 1e-5 for earlier, later in pairwise(shares))
    assert heard["longest"] <= 10, "seconds that are held for the audio thread in one piece"


# While it plays: the position before and after a switch. Between both the clock stands still, however busy the machine.
SWITCHED = """async () => {
  const { player } = gomin;
  player.seek(0);
  await player.play();
  while (player.position === 0) await new Promise((resolve) => setTimeout(resolve));
  const clock = Object.getOwnPropertyDescriptor(BaseAudioContext.prototype, "currentTime");
  let now;
  const get = function () { return now ??= clock.get.call(this); };
  Object.defineProperty(BaseAudioContext.prototype, "currentTime", { ...clock, get });
  const before = player.position;
  player.side = "original";
  const after = player.position;
  Object.defineProperty(BaseAudioContext.prototype, "currentTime", clock);
  return [before, after];
}"""


def test_the_switch_keeps_the_position(pages: Pages, gateway: Gateway) -> None:
    page = pages.open(f"{gateway.url}/#example=crow")
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
    assert after == before > 0
    page.locator("#seek").focus()
    page.keyboard.press("End")
    until(page, "!gomin.player.playing")
    assert page.evaluate("gomin.player.position === gomin.player.length")


def test_everything_is_done_with_the_keyboard_alone(pages: Pages, gateway: Gateway) -> None:
    page = pages.new()
    page.on("filechooser", lambda chooser: chooser.set_files(CROW))  # from now on: no dialog of the desktop opens
    pages.open(f"{gateway.url}/#model=gomin_diffusion&sampler=ddim", page)
    expect(page.locator("#model")).to_have_value("gomin_diffusion", timeout=WAIT_MS)
    tab_to(page, "file")
    page.keyboard.press("Enter")
    expect(page.locator("#chosen")).to_contain_text("crow.flac")
    tab_to(page, "steps")
    page.keyboard.type("1")
    tab_to(page, "schedule")
    page.keyboard.type("cos")
    tab_to(page, "early")
    page.keyboard.press("Space")
    tab_to(page, "run")
    page.keyboard.press("Enter")
    expect(page.locator("#distances")).to_be_visible(timeout=WAIT_MS)
    expect(page.locator("#made")).to_contain_text("steps=1, schedule=cosine")

    tab_to(page, "switch")
    page.keyboard.press("Space")
    expect(page.locator("#switch")).to_have_attribute("aria-checked", "false")
    tab_to(page, "format")
    page.keyboard.press("ArrowDown")
    tab_to(page, "download")
    with page.expect_download() as downloading:
        page.keyboard.press("Enter")
    assert downloading.value.suggested_filename == "crow_diffusion.flac"
    expect(page.locator("#download")).to_be_focused()
    tab_to(page, "seek")
    page.keyboard.press("End")
    assert page.evaluate("gomin.player.position === gomin.player.length")
    tab_to(page, "band")
    before = page.locator("#value-place").inner_text()
    page.keyboard.press("ArrowUp")
    assert page.locator("#value-place").inner_text() != before
    assert "original −" in page.locator("#band").get_attribute("aria-valuetext")
    page.keyboard.press("x")
    expect(page.locator("#switch")).to_have_attribute("aria-checked", "true")
    page.keyboard.press("Space")
    until(page, "gomin.player.playing")
    tab_to(page, "play")
    page.keyboard.press("Space")
    until(page, "!gomin.player.playing")
    tab_to(page, "link")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("link")


def test_a_recording(pages: Pages, gateway: Gateway) -> None:
    page = pages.open(gateway.url)
    page.get_by_role("button", name="Record").click()
    until(page, "/Stop .[1-9]/.test(record.textContent) && (record.click(), true)")
    expect(page.locator("#chosen")).to_contain_text("recording.wav", timeout=WAIT_MS)
    found = reconstruct(page)

    original = np.array(page.evaluate("Array.from(gomin.player.original)"))
    assert len(found) == len(original) > 12_000
    assert np.abs(original).max() > 0.01, "the fake microphone beeps"


def test_a_key_is_kept_for_the_tab_only(pages: Pages) -> None:
    model = Gated()
    model.let_all()
    with running(model.transport, keys=ApiKeys(["right"])) as gateway:
        page = pages.open(gateway.url)
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


def test_people_who_see_or_hear_less_can_use_it(pages: Pages, gateway: Gateway) -> None:
    page = pages.open(
        f"{gateway.url}/#model=gomin_diffusion&sampler=ddim&steps=1&example=crow",
        reduced_motion="reduce",
        viewport={"width": 360, "height": 740},
    )
    expect(page.locator("#chosen")).to_contain_text("crow.flac", timeout=WAIT_MS)
    reconstruct(page)
    page.get_by_label("Choose a file").set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"a"})
    expect(page.get_by_role("alert")).to_be_visible()

    papers = set()
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        found = Axe().run(page).response["violations"]
        assert not [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found], theme
        papers.add(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    assert len(papers) == 2
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_the_policy_of_the_page(gateway: Gateway) -> None:
    for path in ("/", "/main.js", "/style.css"):
        headers = gateway.call("GET", path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["content-security-policy"]


def test_the_examples_are_those_of_the_repository() -> None:
    for example in (WEB / "examples").iterdir():
        assert example.read_bytes() == (CROW.parent / example.name).read_bytes()
