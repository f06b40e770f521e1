"""The page as a folder, in a real browser, from a plain web server: models run in the page."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from gomin_client import Vocoder
from gomin_client.inference.windows import Windower, choose_size
from gomin_client.mel.features import MelConfig, mel_spectrogram
from gomin_client.mel.resampling import resample
from gomin_client.sampling.settings import SamplerSettings
from gomin_gateway.cli import app
from tests.browser import WAIT_MS, Pages, chromium, until
from tests.gateway.page_actions import choose, inside, pack, reconstruct, unpack
from tests.gateway.running import TWO_ROUNDINGS
from tests.gateway.static_site import Change, Site, served, unchanged
from tests.support import EXAMPLES, invoke, tool

ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    with Pages(browser) as pages:
        yield lambda site, fragment="": pages.open(f"{site.url}/#{fragment}")


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, written with the package that npm fetches."""
    tool("npm")
    made = tmp_path_factory.mktemp("static") / "site"
    result = invoke(app, "--url", f"local:{repository}", "--static", made)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{made}: a page with gomin_")
    return made


@pytest.fixture(scope="module")
def serving(folder: Path) -> Iterator[Site]:
    with served(folder) as site:
        yield site


@pytest.fixture
def site(serving: Site) -> Site:
    serving.reset()
    return serving


def sound(seconds: float, rate: int = 24000, channels: int = 2) -> np.ndarray:
    """(samples, channels) of a recording, in 16 bits, with the largest and smallest integers."""
    wave, found = soundfile.read(EXAMPLES[1], dtype="float32", always_2d=True)
    wave = resample(wave.T, found, rate).T[: round(seconds * rate), :channels]
    integers = np.round(wave * 20000).astype(np.int16)
    integers[:2] = [[32767], [-32768]]
    return integers


def encoded(samples: np.ndarray, rate: int, kind: str, subtype: str) -> bytes:
    file = io.BytesIO()
    if subtype in ("FLOAT", "DOUBLE") and samples.dtype == np.int16:
        samples = samples / 32768
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def decoded(content: bytes) -> np.ndarray:
    """(samples, channels) float32."""
    return soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)[0]


# Notes how much there is when each part arrives, and whether the whole is there.
NOTE_PARTS = """() => {
  const { player } = gomin;
  const append = player.append.bind(player);
  gomin.parts = [];
  player.append = (part) => { append(part); gomin.parts.push([player.available, player.complete]); };
}"""


@pytest.mark.slow
@pytest.mark.parametrize("isolated", [False, True])
def test_a_file_becomes_what_the_client_makes_of_it(
    open_page: Open, site: Site, repository: Path, isolated: bool
) -> None:
    site.headers = ISOLATION if isolated else {}
    content = encoded(sound(3), 24000, "FLAC", "PCM_16")
    page = open_page(site)
    choose(page, "a.flac", content)
    page.evaluate(NOTE_PARTS)
    found = reconstruct(page)

    wave = decoded(content).mean(axis=1, dtype=np.float64).astype(np.float32)
    original = np.array(page.evaluate("Array.from(gomin.player.original)"), np.float32)
    np.testing.assert_array_equal(original, wave)
    with Vocoder(f"local:{repository}") as vocoder:
        expected = vocoder.reconstruct(wave, 24000)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=TWO_ROUNDINGS)

    parts = page.evaluate("gomin.parts")
    assert [available for available, _ in parts] == [16 * 256, 48 * 256, 138 * 256, 72_000]
    assert not any(complete for _, complete in parts)
    expect(page.locator("#made")).to_contain_text("gomin_gan 1")
    threads = page.evaluate("crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 4) : 1")
    shown = "one thread" if threads == 1 else f"{threads} threads"
    if threads <= 4:
        expect(page.locator("#engine-note")).to_contain_text(shown)
    assert page.evaluate("crossOriginIsolated") == isolated
    assert not Axe().run(page).response["violations"]


@pytest.mark.slow
def test_diffusion(open_page: Open, site: Site, repository: Path) -> None:
    content = encoded(sound(2, channels=1), 24000, "WAV", "PCM_16")  # several windows
    page = open_page(site, "model=gomin_diffusion&sampler=ddim&steps=3&eta=0.5&seed=7")
    expect(page.get_by_label("Seed")).to_have_value("7", timeout=WAIT_MS)
    choose(page, "a.wav", content)
    found = reconstruct(page)
    with Vocoder(f"local:{repository}", model="diffusion", sampling=SamplerSettings("ddim", 3, eta=0.5)) as vocoder:
        expected = vocoder.reconstruct(decoded(content)[:, 0], 24000, seed=7)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    expect(page.locator("#made")).to_contain_text("seed 7")
    page.get_by_label("Seed").fill("many")
    page.get_by_role("button", name="Reconstruct", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("seed many: expected a whole number, 0 … 2**64 - 1", timeout=WAIT_MS)


DECODE = """async (files) => {
  const { decode } = await import("./browser/decoding.js");
  const found = [];
  for (const [name, text] of files) {
    const { channels, rate } = await decode(new File([bytesOf(text)], name));
    found.push([rate, channels.map(pack)]);
  }
  return found;
}"""


def test_files_are_decoded_at_their_own_rate(open_page: Open, site: Site) -> None:
    exact = [("WAV", name) for name in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")]
    exact += [("WAVEX", "PCM_16"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24")]
    lossy = [("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")]
    rates = [11025, 24000, 44100]
    files = {
        (kind, subtype, rate): encoded(sound(0.2, rate), rate, kind, subtype)
        for kind, subtype in exact + lossy
        for rate in rates
    }
    page = open_page(site)
    given = [[f"a.{kind}", pack(content)] for (kind, _, _), content in files.items()]
    for ((kind, subtype, rate), content), (found_rate, channels) in zip(
        files.items(), inside(page, DECODE, given), strict=True
    ):
        what = (kind, subtype, rate)
        found, expected = np.array([unpack(samples) for samples in channels]).T, decoded(content)
        assert found_rate == rate, what
        if (kind, subtype) in exact:
            np.testing.assert_array_equal(found, expected, err_msg=str(what))
        else:
            shorter = min(len(found), len(expected))
            assert abs(len(found) - len(expected)) <= 1152, what
            found, expected = np.clip(found, -1, 1), np.clip(expected, -1, 1)  # browsers clip some formats
            np.testing.assert_allclose(found[:shorter], expected[:shorter], rtol=0, atol=1e-4, err_msg=str(what))


RESAMPLE = """async (waves) => {
  const { resample } = await import("./browser/resampling.js");
  return waves.map(([rate, samples]) => pack(resample(unpack(samples), rate, 24000)));
}"""


def test_other_rates_are_resampled_as_the_client_does(open_page: Open, site: Site) -> None:
    rates = [8000, 16000, 22050, 32000, 44100, 44056, 48000, 96000]
    waves = {rate: (sound(0.5, rate, 1)[2:, 0] / 20000).astype(np.float32) for rate in rates}
    for wave in waves.values():
        wave *= np.hanning(len(wave)).astype(
            np.float32
        )  # a cut is a sound of all frequencies, where filters differ most
    found = inside(open_page(site), RESAMPLE, [[rate, pack(wave)] for rate, wave in waves.items()])
    for (rate, wave), result in zip(waves.items(), found, strict=True):
        expected = resample(wave, rate, 24000)
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(unpack(result), expected, rtol=0, atol=1e-4, err_msg=str(rate))


WINDOWS = """async (cases) => {
  const { Windower, chooseSize } = await import("./browser/windows.js");
  const numbers = ({ first, length, skip, keep }) => [first, length, skip, keep];
  return cases.map(([blocks, halo, most, firstSize]) => {
    const windower = new Windower(chooseSize(halo, most), halo, firstSize ?? undefined);
    const found = blocks.flatMap((frames) => [...windower.feed(frames)]);
    return [...found, ...windower.finish()].map(numbers);
  });
}"""


def test_windows_are_those_of_the_client(open_page: Open, site: Site) -> None:
    random = np.random.default_rng(3)
    cases: list[list[Any]] = []
    for _ in range(200):
        halo = int(random.integers(0, 80))
        most = None if random.random() < 0.3 else int(random.integers(2 * halo + 1, 900))
        first_size = None if random.random() < 0.3 else int(random.integers(halo + 1, halo + 60))
        cases.append([random.integers(1, 900, random.integers(1, 6)).tolist(), halo, most, first_size])
    for (blocks, halo, most, first_size), found in zip(cases, open_page(site).evaluate(WINDOWS, cases), strict=True):
        windower = Windower(choose_size(None, halo, most), halo, first_size)
        expected = [window for frames in blocks for window in windower.feed(frames)] + [*windower.finish()]
        assert found == [[w.first, w.length, w.skip, w.keep] for w in expected], (blocks, halo, most, first_size)


MELS = """async (waves) => {
  const { Engine } = await import("./engine.js");
  const engine = new Engine();
  const model = (await engine.models()).find(({ kind }) => kind === "gan");
  const found = [];
  for (const wave of waves) {
    const { bands, frames, values } = await engine.mel(unpack(wave), 24000, model, new AbortController().signal);
    found.push([bands, frames, pack(values)]);
  }
  return found;
}"""


def test_mels_are_those_of_the_client(open_page: Open, site: Site) -> None:
    lengths = [1, 255, 256, 255 * 256, 256 * 256 - 1, 256 * 256 + 700, 513 * 256]  # blocks of 256 frames
    waves = [(sound(6, channels=1)[:length, 0] / 32768).astype(np.float32) for length in lengths]
    found = inside(open_page(site), MELS, [pack(wave) for wave in waves])
    for wave, (bands, frames, values) in zip(waves, found, strict=True):
        expected = mel_spectrogram(wave, MelConfig())
        assert (bands, frames) == expected.shape
        np.testing.assert_allclose(unpack(values).reshape(expected.shape), expected, rtol=0, atol=1e-6)


def test_what_goes_wrong_is_said(open_page: Open, site: Site) -> None:
    small = encoded(sound(0.5), 24000, "WAV", "PCM_16")
    page = open_page(site)
    alert = page.get_by_role("alert")
    run = page.get_by_role("button", name="Reconstruct", exact=True)

    def fails(words: str, change: Change = unchanged, content: bytes = small) -> None:
        site.change = change
        choose(page, "a.wav", content)
        run.click()
        expect(alert).to_contain_text(words, timeout=WAIT_MS)
        expect(page.locator("#status")).to_be_empty()

    fails("this browser cannot decode it", content=b"not a sound")
    fails("contains no samples", content=encoded(np.zeros((0, 1)), 24000, "WAV", "PCM_16"))
    fails("contains NaN", content=encoded(np.full((9, 1), np.nan), 24000, "WAV", "FLOAT"))
    fails("far beyond full scale", content=encoded(np.full((9, 1), 3e4), 24000, "WAV", "FLOAT"))
    fails("601 s of audio; this page takes up to 600", content=encoded(np.zeros((601 * 100, 1)), 100, "WAV", "PCM_U8"))

    def flipped(name: str, content: bytes) -> bytes:
        return content[:-1] + bytes([content[-1] ^ 1]) if name.startswith("models/gomin_gan") else content

    def broken_off(name: str, content: bytes) -> bytes:
        return content[:1000] if name.endswith(".wasm") else content

    fails("the connection was lost", broken_off)
    fails("is damaged", flipped)

    arrived, released = threading.Event(), threading.Event()

    def waiting(name: str, content: bytes) -> bytes:
        if name.startswith("models/gomin_gan"):
            arrived.set()
            released.wait()
        return content

    site.change = waiting
    try:
        run.click()
        until(page, "document.getElementById('status').textContent.startsWith('Loading the model')")
        assert arrived.wait(WAIT_MS / 1000)
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#status")).to_have_text("Cancelled.")
    finally:
        released.set()
    site.reset()
    assert reconstruct(page).shape == (12_000,)


def test_a_model_that_is_too_large_is_not_loaded(open_page: Open, site: Site) -> None:
    def enlarged(name: str, content: bytes) -> bytes:
        if name != "models.json":
            return content
        found = json.loads(content)
        for model in found["models"]:
            model["network"]["bytes"] = 9_999_999_999  # takes the room of blanks: the length stays
        packed = json.dumps(found, ensure_ascii=False).encode()
        return packed + b" " * (len(content) - len(packed))

    site.change = enlarged
    page = open_page(site)
    choose(page, "a.wav", encoded(sound(0.5), 24000, "WAV", "PCM_16"))
    page.get_by_role("button", name="Reconstruct", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("10000 MB; browsers run models of up to 1000 MB", timeout=WAIT_MS)
    assert not [name for name in site.asked if name.startswith("models/gomin_gan")]


def test_a_browser_without_enough_memory_says_so(browser: Browser, site: Site) -> None:
    arguments = ["--no-sandbox", "--js-flags=--wasm-max-mem-pages=300"]  # 20 MB
    small = browser.browser_type.launch(executable_path=tool("chromium"), args=arguments, timeout=WAIT_MS)
    try:
        with Pages(small) as pages:
            page = pages.open(f"{site.url}/")
            choose(page, "a.wav", encoded(sound(0.5), 24000, "WAV", "PCM_16"))
            page.get_by_role("button", name="Reconstruct", exact=True).click()
            expect(page.get_by_role("alert")).to_contain_text("needs more memory than the browser", timeout=WAIT_MS)
    finally:
        small.close()


def test_options_that_do_not_fit(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = f"local:{tmp_path}"
    site = tmp_path / "site"
    for arguments, words in (
        (["--static", site, "--port", "9"], "--port has no effect with --static"),
        (["--static", site, "--log-json"], "--log-json has no effect with --static"),
        (["--static", site, "--timeout", "9"], "--timeout has no effect with --static"),
        (["--webgpu"], "--webgpu needs --static"),
        (["--static", site, "--url", "grpc://localhost:1"], "--static needs the models themselves"),
        (["--static", site], "--static needs the models themselves"),
        (["--static", site, "--url", repository, "--onnxruntime-web", tmp_path], "has no model that makes audio"),
    ):
        result = invoke(app, *arguments, env={"GOMIN_URL": None})
        assert result.returncode in (2, 3), result
        assert words in result.stderr, result.stderr
    assert not site.exists()


def test_operators_of_a_native_library_are_refused(native_repository: Path, tmp_path: Path) -> None:
    result = invoke(app, "--url", f"local:{native_repository}", "--static", tmp_path / "site")

    assert result.returncode == 2
    assert "gomin_gan: browsers cannot run it, since it needs the operators gomin 1 of a native" in result.stderr
    assert result.stderr.endswith("export the checkpoint with --target any or, a GAN, cpu\n")
    assert not (tmp_path / "site").exists()


def test_the_folder_is_complete_or_not_there(
    repository: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--url", f"local:{repository}", "--onnxruntime-web"]
    package = tmp_path / "package"
    (package / "dist").mkdir(parents=True)
    names = json.loads((folder / "models.json").read_text())["runtime"]["cpu"].values()
    for name in (entry["file"] for entry in names):
        stem, _, suffix = name.rpartition(".")
        target = package / "dist" / f"{stem.removeprefix('onnxruntime-web/')[:-13]}.{suffix}"
        target.write_bytes((folder / name).read_bytes())

    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").touch()
    result = invoke(app, "--static", mine, *options, package)
    assert (result.returncode, "is a folder with other files" in result.stderr) == (2, True), result.stderr

    site = tmp_path / "site"
    assert invoke(app, "--static", site, *options, package).returncode == 0
    (site / "old.txt").touch()
    assert invoke(app, "--static", site, *options, package).returncode == 0  # its own folder is replaced
    assert not (site / "old.txt").exists()

    target.write_bytes(b"another version")
    result = invoke(app, "--static", site, *options, package)
    assert (result.returncode, "is not that of onnxruntime-web" in result.stderr) == (2, True), result.stderr
    result = invoke(app, "--static", site, *options, tmp_path / "nowhere.tgz")
    assert (result.returncode, "no such file or folder" in result.stderr) == (2, True), result.stderr
    (tmp_path / "not.tgz").write_bytes(b"no archive")
    result = invoke(app, "--static", site, *options, tmp_path / "not.tgz")
    assert (result.returncode, "cannot be read as the npm package" in result.stderr) == (2, True), result.stderr
    monkeypatch.setenv("PATH", str(tmp_path))
    result = invoke(app, "--static", site, *options[:-1])
    assert (result.returncode, "npm is not installed" in result.stderr) == (2, True), result.stderr
    assert (site / "index.html").exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {"mine", "not.tgz", "package", "site"}
