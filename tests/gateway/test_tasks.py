"""The tasks through a real gateway and a real server: the same audio as from gomin-client."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gomin_client import Vocoder, to_gomin
from gomin_client.cli.main import app as client
from gomin_client.files import mels
from gomin_client.mel.resampling import resample
from tests.gateway.running import TWO_ROUNDINGS, Gateway, multipart
from tests.gateway.test_answers import wav
from tests.support import EXAMPLES, RunningServer, invoke

MEDIA_TYPES = {"wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg", "ogg": "audio/ogg"}


def samples(body: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(body), dtype="float32")[0]


@pytest.fixture(scope="module")
def made_by_client(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What gomin-client makes of the first example, in all formats."""
    folder = tmp_path_factory.mktemp("client")
    for name in MEDIA_TYPES:
        target = folder / f"a.{name}"
        result = invoke(client, "reconstruct", EXAMPLES[0], "-o", target, "--url", server.grpc)
        assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_reconstruct_makes_what_the_client_makes(
    gateway: Gateway, crow: bytes, made_by_client: Path, name: str
) -> None:
    answer = gateway.post("/v1/reconstruct", crow, {"Accept": MEDIA_TYPES[name]})

    assert (answer.status, answer.headers["content-type"]) == (200, MEDIA_TYPES[name])
    assert answer.headers["gomin-model"] == "gomin_gan 1"
    assert len(answer.body) == int(answer.headers["content-length"])
    np.testing.assert_array_equal(samples(answer.body), samples((made_by_client / f"a.{name}").read_bytes()))


def test_a_form_and_parameters(gateway: Gateway, crow: bytes, made_by_client: Path) -> None:
    body, headers = multipart(crow, 'b"; filename="x')
    answer = gateway.post("/v1/reconstruct", body, headers, format="flac", trim="false", window=100)
    plain = gateway.post("/v1/reconstruct", *multipart(crow))

    assert soundfile.info(io.BytesIO(answer.body)).format == "FLAC"
    assert len(samples(answer.body)) % 256 == 0
    np.testing.assert_array_equal(samples(plain.body), samples((made_by_client / "a.wav").read_bytes()))


@pytest.mark.parametrize("form", [{}, {"stream": 1, "format": "raw", "subtype": "float"}])
def test_resample_gives_the_audio_that_mels_are_made_of(gateway: Gateway, form: dict[str, object]) -> None:
    guitar, rate = soundfile.read(EXAMPLES[2], dtype="float32")
    body = EXAMPLES[2].read_bytes()
    answer = gateway.post("/v1/resample", body, **form)
    found = np.frombuffer(answer.body, "<f4") if form else samples(answer.body)

    assert answer.headers["gomin-model"] == "gomin_gan 1"
    expected = resample(guitar.mean(axis=1), rate, 24000)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 if form else 4e-5)
    again = io.BytesIO()
    soundfile.write(again, found, 24000, format="WAV", subtype="FLOAT")
    mel, other = (np.load(io.BytesIO(gateway.post("/v1/analyze", sound).body)) for sound in (body, again.getvalue()))
    if form:
        np.testing.assert_allclose(other, mel, rtol=0, atol=1e-4)


def test_resample_keeps_channels_and_names_defects(gateway: Gateway) -> None:
    body = EXAMPLES[2].read_bytes()

    assert samples(gateway.post("/v1/resample", body, channels="all").body).shape == (144000, 2)
    cut = gateway.post("/v1/resample", wav(1)[:20_000])
    assert "truncated" in cut.headers["gomin-warning"]


def test_streamed_equals_whole(gateway: Gateway) -> None:
    sound, query = wav(2), {"subtype": "float", "window": 64}
    whole = gateway.post("/v1/reconstruct", sound, **query)
    streamed = gateway.post("/v1/reconstruct", sound, **query, stream=1)
    bare = gateway.post("/v1/reconstruct", sound, **query, stream=1, format="raw")

    assert streamed.headers["transfer-encoding"] == "chunked"
    made = np.frombuffer(bare.body, "<f4")
    assert len(made) == 2 * 24000
    np.testing.assert_allclose(samples(streamed.body), made, rtol=0, atol=TWO_ROUNDINGS)
    np.testing.assert_allclose(made, samples(whole.body), rtol=0, atol=TWO_ROUNDINGS)


def test_channels(gateway: Gateway, crow: bytes) -> None:
    wave, rate = soundfile.read(io.BytesIO(crow), dtype="float32")
    stereo = io.BytesIO()
    soundfile.write(stereo, np.stack([wave, -wave], axis=1), rate, format="WAV")
    mixed = gateway.post("/v1/reconstruct", stereo.getvalue())
    both = gateway.post("/v1/reconstruct", stereo.getvalue(), channels="all")

    assert np.abs(samples(mixed.body)).max() < 0.01  # the mean of both is silence
    assert samples(both.body).shape[1] == 2


def test_a_seed_repeats_what_a_diffusion_model_made(gateway: Gateway, crow: bytes) -> None:
    query = {"model": "diffusion", "sampler": "ddim", "timesteps": "40,10", "subtype": "float"}
    first = gateway.post("/v1/reconstruct", crow, **query)
    seed = first.headers["gomin-seed"]
    again = gateway.post("/v1/reconstruct", crow, **query, seed=seed)
    other = gateway.post("/v1/reconstruct", crow, **query, seed=int(seed) + 1)

    assert first.headers["gomin-sampling"] == "sampler=ddim, steps=2, schedule=linear, timesteps=40,10"
    assert again.headers["gomin-seed"] == seed
    np.testing.assert_allclose(samples(first.body), samples(again.body), rtol=0, atol=1e-4)
    assert np.abs(samples(first.body) - samples(other.body)).max() > 0.01


@pytest.mark.parametrize("name", ["npy", "npz"])
def test_analyze_and_synthesize(
    gateway: Gateway, server: RunningServer, crow: bytes, tmp_path: Path, name: str
) -> None:
    target = tmp_path / f"a.{name}"
    result = invoke(client, "analyze", EXAMPLES[0], "-o", target)
    assert result.returncode == 0, result.stderr
    analyzed = gateway.post("/v1/analyze", crow, format=name)
    assert analyzed.status == 200, analyzed.body
    (tmp_path / f"b.{name}").write_bytes(analyzed.body)
    expected, made = (mels.read(tmp_path / f"{letter}.{name}") for letter in "ab")
    np.testing.assert_array_equal(made.mel, expected.mel)
    assert made.config == expected.config

    audio = gateway.post("/v1/synthesize", analyzed.body, subtype="float")
    with Vocoder(server.grpc) as vocoder:
        np.testing.assert_allclose(samples(audio.body), vocoder.synthesize(made.mel[0]), rtol=0, atol=TWO_ROUNDINGS)


def test_mels_of_other_programs(gateway: Gateway, crow: bytes) -> None:
    mel = np.load(io.BytesIO(gateway.post("/v1/analyze", crow).body))
    other = io.BytesIO()
    np.save(other, (100 * mel.T - 100).astype(np.float32))
    refused = gateway.post("/v1/synthesize", other.getvalue(), transpose="true")
    refused.assert_problem(422, "suspicious-input", "`mel-convention=db`", "`force=true`", "`/v1/analyze`")
    converted = gateway.post("/v1/synthesize", other.getvalue(), transpose="true", mel_convention="db", subtype="float")
    plain = gateway.post("/v1/synthesize", mel_file(to_gomin(100 * mel - 100, "db")), subtype="float")

    np.testing.assert_allclose(samples(converted.body), samples(plain.body), rtol=0, atol=TWO_ROUNDINGS)


def mel_file(mel: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, mel)
    return file.getvalue()


def test_a_truncated_recording_has_a_warning(gateway: Gateway) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(24000), 24000, format="WAV")
    answer = gateway.post("/v1/reconstruct", file.getvalue()[:30_000])

    assert answer.headers["gomin-warning"] == "the recording is truncated; read as far as it goes, 0.62 s"


def test_models(gateway: Gateway) -> None:
    found = {model["name"]: model for model in gateway.call("GET", "/v1/models").json["models"]}

    assert list(found) == ["gomin_diffusion", "gomin_gan"]
    assert (found["gomin_gan"]["kind"], found["gomin_gan"]["halo_frames"]) == ("gan", 13)
    assert found["gomin_diffusion"]["sampling"]["default"]["steps"] == 50
    assert found["gomin_diffusion"]["mel"]["n_mels"] == 32
    assert len(found["gomin_gan"]["versions"][0]["checkpoint_sha256"]) == 64


def test_a_model_that_makes_no_audio(gateway: Gateway, crow: bytes) -> None:
    for model, words in (
        ("gomin_denoiser", "it does not make audio"),
        ("gomin_mel", "it does not make audio"),
        ("gomin_reconstruct", "takes audio and computes the mel on the Triton server"),
    ):
        answer = gateway.post("/v1/reconstruct", crow, model=model)
        answer.assert_problem(404, "unsuitable-model", model, words)
        assert answer.json["title"] == "This model cannot be used here"


def test_health_and_counters(gateway: Gateway, crow: bytes) -> None:
    assert gateway.call("GET", "/healthz").json == {"status": "ok"}
    assert gateway.call("GET", "/readyz").json == {"status": "ready"}
    gateway.wait_until_idle()  # callers of other tests may have gone away
    before = gateway.count(200, "/v1/analyze")
    gateway.post("/v1/analyze", crow)
    text = gateway.call("GET", "/metrics").body.decode()

    assert f'gomin_gateway_requests_total{{method="POST",route="/v1/analyze",status="200"}} {before + 1}' in text
    assert "gomin_gateway_requests_in_progress 0.0" in text
