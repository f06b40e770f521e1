"""The steps of a chain over HTTP and in the page, from a real model in-process."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, expect

from gomin_client import Vocoder
from gomin_client.contract.model import DENOISER_MODEL, DIFFUSION_MODEL
from tests.browser import WAIT_MS, Pages, chromium, until
from tests.gateway.page_actions import choose, reconstruct
from tests.gateway.running import Answer, Gated, Gateway, running
from tests.gateway.test_problems import npy

SEED = 7
STEPS = 5  # of the default chain of `streaming`


@pytest.fixture(scope="module")
def stepping(streaming: Path) -> Iterator[Gateway]:
    with running([f"local:{streaming}"]) as made:
        yield made


RATE = 16000


@pytest.fixture(scope="module")
def recording() -> bytes:
    """A third of a second at another sample rate, in two channels."""
    times = np.arange(RATE // 3) / RATE
    return wav(np.stack([0.3 * np.sin(2 * np.pi * 440 * times), 0.2 * np.sin(2 * np.pi * 990 * times)]))


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples.T, RATE, "FLOAT", format="WAV")
    return file.getvalue()


def samples(content: bytes) -> np.ndarray:
    """(channels, samples) float32."""
    return soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)[0].T


def lines(answer: Answer) -> list[dict[str, object]]:
    assert answer.status == 200, answer.body[:500]
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.body.splitlines()]


def waves(found: list[dict[str, object]]) -> list[np.ndarray]:
    """(channels, samples) of each line."""
    return [samples(base64.b64decode(str(line["audio"]))) for line in found]


def test_a_recording(stepping: Gateway, streaming: Path, recording: bytes) -> None:
    """Each line has what the client has; the last one is what the other address answers."""
    asked = {"subtype": "float", "channels": "all", "seed": SEED}
    answer = stepping.post("/v1/reconstruct/steps", recording, **asked)
    whole = stepping.post("/v1/reconstruct", recording, model="diffusion", **asked)

    found = lines(answer)
    assert [(line["step"], line["steps"]) for line in found] == [(step, STEPS) for step in range(1, STEPS + 1)]
    timesteps = [line["timestep"] for line in found]
    assert timesteps == sorted(timesteps, reverse=True)
    assert (answer.headers["gomin-model"], answer.headers["gomin-seed"]) == ("gomin_diffusion 1", str(SEED))
    assert answer.headers["gomin-sampling"] == whole.headers["gomin-sampling"]
    last = samples(whole.body)
    made = waves(found)
    assert {wave.shape for wave in made} == {last.shape} == {(2, 8000)}
    assert made[-1] == pytest.approx(last, abs=2e-5)
    with Vocoder(f"local:{streaming}", "diffusion") as vocoder:
        mel = vocoder.analyze(samples(recording), RATE)
        for step, wave in zip(vocoder.synthesize_steps(mel, SEED), made, strict=True):
            assert wave == pytest.approx(step.audio[:, :8000], abs=2e-5)
    stepping.wait_until_idle()


def test_a_mel(stepping: Gateway, streaming: Path) -> None:
    mel = np.random.default_rng(0).uniform(0, 1, (32, 20)).astype(np.float32)
    asked = {"sampler": "fast", "seed": SEED, "format": "flac"}
    found = lines(stepping.post("/v1/synthesize/steps", npy(mel.T), transpose="true", **asked))

    with Vocoder(f"local:{streaming}", "diffusion", sampler="fast") as vocoder:
        expected = [step.audio for step in vocoder.synthesize_steps(mel, SEED)]
    assert len(found) == len(expected) == 6
    for wave, step in zip(waves(found), expected, strict=True):
        assert wave[0] == pytest.approx(step, abs=2**-15 + 2e-5)
    with soundfile.SoundFile(io.BytesIO(base64.b64decode(str(found[2]["audio"])))) as file:
        assert file.comment.endswith("step 3 of 6")
        assert f"seed {SEED}, sampler fast" in file.comment


def test_problems(stepping: Gateway, streaming: Path, tmp_path: Path, recording: bytes) -> None:
    path = "/v1/reconstruct/steps"
    stepping.post(path, recording, stream="1").assert_problem(400, "bad-parameter", "parameter stream")
    stepping.post(path, recording, format="raw").assert_problem(400, "bad-parameter", "raw")
    stepping.post("/v1/synthesize/steps", b"no mel").assert_problem(422, "unreadable-file", "not a mel")
    loud = npy(np.full((32, 9), 90, np.float32))
    stepping.post("/v1/synthesize/steps", loud).assert_problem(422, "suspicious-input", "force=true")
    with running(Gated().transport) as other:
        other.post(path, recording, model="gan").assert_problem(404, "unsuitable-model", "no sampling chain")
    for name in (DENOISER_MODEL, DIFFUSION_MODEL):
        shutil.copytree(streaming / name, tmp_path / name)
    with running([f"local:{tmp_path}"]) as without:
        refused = without.post(path, recording)
        (model,) = without.call("GET", "/v1/models").json["models"]
    refused.assert_problem(404, "unsuitable-model", "no model gomin_diffusion_stream", "gomin-export")
    assert not model["sends_steps"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def pages(browser: Browser) -> Iterator[Pages]:
    with Pages(browser) as opened:
        yield opened


def test_the_page_shows_each_step(pages: Pages, stepping: Gateway, recording: bytes) -> None:
    page = pages.open(f"{stepping.url}/#model=gomin_diffusion&seed={SEED}")
    choose(page, "tone.wav", recording)
    page.get_by_label("Show each step").check()
    page.evaluate("""() => {
      globalThis.seen = [];
      const status = document.getElementById("status");
      new MutationObserver(() => seen.push(status.textContent)).observe(status, { childList: true });
    }""")
    found = reconstruct(page)

    seen = page.evaluate("seen")
    for step in range(1, STEPS + 1):
        assert f"Computing: step {step} of {STEPS}" in seen
    whole = stepping.post("/v1/reconstruct", recording, model="diffusion", subtype="float", seed=SEED)
    assert found == pytest.approx(samples(whole.body)[0], abs=2e-5)
    expect(page.locator("#made")).to_contain_text(f"seed {SEED}.")


def test_a_step_is_kept(pages: Pages, stepping: Gateway, recording: bytes) -> None:
    """The chain ends early: a long one of 50 steps, of which the page keeps the step that was the latest."""
    page = pages.open(f"{stepping.url}/#model=gomin_diffusion&sampler=ddpm&seed={SEED}")
    choose(page, "tone.wav", wav(np.tile(samples(recording), 20)))
    page.get_by_label("Show each step").check()
    page.get_by_role("button", name="Reconstruct", exact=True).click()
    page.get_by_role("button", name="Keep this step").click(timeout=WAIT_MS)
    expect(page.locator("#distances")).to_be_visible(timeout=WAIT_MS)

    expect(page.locator("#made")).to_contain_text("kept after step ")
    words = page.locator("#made").inner_text().rstrip(".").split()
    step, steps = int(words[-3]), int(words[-1])
    assert 1 <= step < steps == 50
    until(page, "gomin.player.complete")
    kept = np.array(page.evaluate("Array.from(gomin.player.samples)"), np.float32)
    stepping.wait_until_idle()
    assert kept.shape == (5333 * 20 * 24000 // RATE,)
    expect(page.get_by_role("button", name="Keep this step")).to_be_hidden()
    expect(page.get_by_role("button", name="Download")).to_be_visible()
