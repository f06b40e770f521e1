"""The page when things come late, break off or cannot be used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.browser import WAIT_MS, Pages, chromium, until
from tests.gateway.page_actions import reconstruct
from tests.gateway.running import Gateway
from tests.support import EXAMPLES


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def pages(browser: Browser) -> Iterator[Pages]:
    with Pages(browser) as opened:
        yield opened


# Counts the files that have been loaded; the next turn of the event loop comes after what is done with them.
COUNT_FILES = """() => {
  globalThis.files = 0;
  const blob = Response.prototype.blob;
  Response.prototype.blob = async function () {
    const found = await blob.call(this);
    globalThis.files += 1;
    return found;
  };
}"""


def test_an_example_that_arrives_late_does_not_replace_a_later_choice(pages: Pages, gateway: Gateway) -> None:
    page = pages.open(gateway.url)
    page.evaluate(COUNT_FILES)
    held: list[Route] = []
    page.route("**/examples/crow.flac", lambda route: held.append(route))
    with page.expect_request("**/examples/crow.flac"):
        page.get_by_role("button", name="a crow").click()
    page.get_by_label("Choose a file").set_input_files(EXAMPLES[1])
    held.pop().continue_()
    until(page, "files === 1")

    expect(page.locator("#chosen")).to_contain_text(EXAMPLES[1].name)


def test_a_microphone_that_cannot_be_used_is_switched_off(pages: Pages, gateway: Gateway) -> None:
    page = pages.open(gateway.url)
    page.evaluate("""() => {
      const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (wanted) => (globalThis.stream = await ask(wanted));
      globalThis.AudioContext = class { constructor() { throw new Error("no audio device"); } };
    }""")
    page.get_by_role("button", name="Record").click()

    expect(page.get_by_role("alert")).to_have_text("The microphone cannot be used: no audio device.", timeout=WAIT_MS)
    assert page.evaluate("stream.getTracks().map(({ readyState }) => readyState)") == ["ended"]


# A player that changes to a model of another rate, and to the other side before it plays; connections that break.
OTHER_RATE = """async () => {
  const { Player } = await import("/player.js");
  const player = new Player();
  for (const rate of [24000, 16000]) {
    player.load(new Float32Array(rate), rate);
    player.side = "original";
    player.append(new Float32Array(rate));
    player.finish();
    player.play();
    player.pause();
  }
  return [player.side, player.rate];
}"""
BROKEN_OFF = """async () => {
  const { GatewayEngine } = await import("/engine-gateway.js");
  const engine = new GatewayEngine();
  const told = (promise) => promise.then(() => "done", ({ name, kind, message }) => [kind, message]);
  const body = () => new ReadableStream({
    start(controller) { controller.enqueue(new Uint8Array(3)); },
    pull(controller) { controller.error(new TypeError("network error")); },
  });
  const usual = globalThis.fetch;
  globalThis.fetch = async () => new Response(body());
  const samples = new Float32Array(1);
  const model = { name: "gomin_gan", sample_rate: 24000 };
  const calls = [
    engine.models(),
    engine.mel(samples, 24000, model),
    engine.encode(samples, 24000, "flac", model),
    engine.reconstruct(new Blob(), {}, model, () => {}),
  ];
  const found = await Promise.all(calls.map(told));
  globalThis.fetch = async () => new Response("<p>Log in</p>");
  found.push(await told(engine.models()));
  globalThis.fetch = usual;
  return found;
}"""


def test_modules_of_the_page_without_the_page(pages: Pages, gateway: Gateway) -> None:
    page = pages.open(gateway.url)

    assert page.evaluate(OTHER_RATE) == ["original", 16000]
    broken = ["broken-off", "the answer was broken off; the log of the gateway has the reason"]
    assert page.evaluate(BROKEN_OFF) == [
        *[broken] * 4,
        ["unreachable", "this is not the answer of a gateway: no JSON"],
    ]


def test_a_link_that_asks_for_an_unknown_model(pages: Pages, gateway: Gateway) -> None:
    page = pages.open(f"{gateway.url}/#model=nobody")
    expect(page.get_by_role("alert")).to_contain_text("“nobody”, which is not offered", timeout=WAIT_MS)


def test_a_problem_is_shown_in_the_words_of_the_gateway(pages: Pages, gateway: Gateway) -> None:
    page = pages.open(gateway.url)
    page.get_by_label("Choose a file").set_input_files({"name": "a.wav", "mimeType": "", "buffer": b"not a sound"})
    page.get_by_role("button", name="Reconstruct", exact=True).click()

    detail = gateway.post("/v1/reconstruct", b"not a sound").json["detail"]
    expect(page.get_by_role("alert")).to_have_text(detail, timeout=WAIT_MS)
    expect(page.locator("#result")).to_be_hidden()
    page.get_by_role("button", name="a crow").click()
    expect(page.get_by_role("alert")).to_be_hidden(timeout=WAIT_MS)
    reconstruct(page)
