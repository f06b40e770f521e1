"""Requests that are refused: each with a problem document, and before the model server is asked to do anything."""

from __future__ import annotations

import io
import json
import socket
import zipfile
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile

from gomin_client.errors import AccessError, DeadlineError, GominError, InferenceError, ServerError
from gomin_gateway.problems import in_http, problem_of
from gomin_gateway.settings import ApiKeys, Limits
from tests.gateway.running import Gated, Gateway, multipart, running
from tests.gateway.test_answers import wav


@pytest.fixture(scope="module")
def model() -> Gated:
    made = Gated(max_frames=2000)
    made.let_all()
    return made


@pytest.fixture(scope="module")
def small(model: Gated) -> Iterator[Gateway]:
    """Takes bodies of 1 MB and 10 s of audio."""
    with running(model.transport, Limits(body_bytes=1_000_000, audio_s=10)) as gateway:
        yield gateway


def npy(mel: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, mel)
    return file.getvalue()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("steps=many", "steps 'many': expected a whole number"),
        ("eta=nan", "eta 'nan': expected a finite number"),
        ("stream=perhaps", "stream 'perhaps': expected true or false"),
        ("channels=left", "channels 'left': expected mono or all"),
        ("window=0", "window '0': expected at least 1"),
        ("seed=-1", "seed '-1': expected at least 0"),
        ("tempo=3", "unknown parameter tempo: expected channels, eta"),
        ("format=xyz", "format xyz: expected wav, flac, ogg, mp3"),
        ("subtype=24&stream=1", "stream: subtype 24: expected 16 or float"),
        ("format=ogg&stream=1", "stream: .ogg needs to be complete; expected format wav or raw"),
        ("seed=1", "model gomin_gan draws no noise: a seed has no effect on it"),
        ("timesteps=", "timesteps '': expected whole numbers with commas"),
        ("steps=3", "model gomin_gan has no sampling chain: steps have no effect on it"),
        ("window=2001", "a window of 2001 frames: the model takes at most 2000"),
        ("window=64", "a window of 64 frames: expected more than 64, twice the model's halo"),
    ],
)
def test_parameters(small: Gateway, model: Gated, query: str, words: str) -> None:
    calls = model.calls
    small.post(f"/v1/reconstruct?{query}", wav(1)).assert_problem(400, "bad-parameter", words)
    assert model.calls == calls


def test_parameters_of_synthesize(small: Gateway) -> None:
    body = npy(np.zeros((128, 9), np.float32))
    refused = small.post("/v1/synthesize", body, mel_convention="bels")
    refused.assert_problem(400, "bad-parameter", "mel convention 'bels': expected one of gomin, power")
    refused = small.post("/v1/synthesize?mel_convention=db", body)
    assert refused.status == 200  # the name with "_" is taken, too


@pytest.mark.parametrize(
    ("query", "status", "kind", "words"),
    [
        ({"model": "tenor"}, 404, "unknown-model", "the model server has no model tenor; it has gomin_gan"),
        ({"version": 7}, 404, "unknown-model", "model gomin_gan has no version 7 that is ready; it has 1"),
    ],
)
def test_models(small: Gateway, query: dict[str, object], status: int, kind: str, words: str) -> None:
    small.post("/v1/reconstruct", wav(1), **query).assert_problem(status, kind, words)


def test_bodies(small: Gateway, model: Gated) -> None:
    calls = model.calls
    nan, loud = np.zeros((128, 9), np.float32), io.BytesIO()
    nan[3, 3] = np.nan
    soundfile.write(loud, np.full(9000, 30_000.0), 24000, format="WAV", subtype="FLOAT")
    for path, body, kind, words in [
        ("reconstruct", b"this is text, and no audio", "unreadable-file", "the body: cannot be read as audio"),
        ("reconstruct", wav(1)[:44], "unreadable-file", "the body: "),
        ("reconstruct", loud.getvalue(), "suspicious-input", "Divide it by 32768"),
        ("synthesize", wav(1), "unreadable-file", "expected a numpy file, .npy or .npz"),
        ("synthesize", npy(nan), "unreadable-file", "the body: its mel contains NaN or infinite values"),
        ("synthesize", npy(nan)[:200], "unreadable-file", "the body: is truncated or damaged"),
        ("synthesize", npy(np.zeros((80, 9))), "unsuitable-input", "80 bands are what HiFi-GAN"),
        ("synthesize", npy(np.zeros((9, 128))), "unsuitable-input", "it looks transposed: `transpose=true`"),
        ("synthesize", npy(np.full((128, 9), 40.0)), "suspicious-input", "`force=true` skips this check"),
    ]:
        small.post(f"/v1/{path}", body).assert_problem(422, kind, words)
    assert model.calls == calls
    small.post("/v1/reconstruct", b"").assert_problem(400, "bad-body", "the body is empty")


def test_forms(small: Gateway) -> None:
    body, headers = multipart(wav(0.1))
    twice = body.replace(b"--XX--\r\n", b"") + body
    field = b'--XX\r\nContent-Disposition: form-data; name="seed"\r\n\r\n7\r\n--XX--\r\n'
    long = b"--XX\r\nContent-Disposition: " + b"x" * 20_000 + b"\r\n\r\n7\r\n--XX--\r\n"
    for malformed, words in [
        (twice, "several files"),
        (field, "a field that is no file; parameters belong in the query"),
        (body[:-9], "ends before its last boundary"),
        (b"--YY\r\n", "malformed"),
        (b"--XX--\r\n", "has no file"),
        (long, ""),
    ]:
        small.post("/v1/reconstruct", malformed, headers).assert_problem(400, "bad-body", words)
    small.post("/v1/reconstruct", body, {"Content-Type": "multipart/form-data"}).assert_problem(
        400, "bad-body", "no boundary"
    )


def test_too_large(small: Gateway) -> None:
    """Declared, and in chunks whose sum nobody declares."""
    small.post("/v1/reconstruct", bytes(1_000_001)).assert_problem(413, "too-large", "1,000,000 bytes")
    connection = small.connect()
    connection.request("POST", "/v1/reconstruct", iter([bytes(100_000)] * 15))
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["type"]) == (413, "urn:gomin:problem:too-large")


def test_a_body_that_waits_for_a_word_is_not_asked_for(small: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=100) as client:
        client.sendall(
            b"POST /v1/reconstruct HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.recv(12) == b"HTTP/1.1 413"


def test_too_long(small: Gateway, model: Gated) -> None:
    """Compressed audio is longer than its bytes; the header may say anything."""
    flac, header = io.BytesIO(), bytearray(wav(0.1))
    soundfile.write(flac, np.zeros(24000 * 60), 24000, format="FLAC")
    assert len(flac.getvalue()) < 100_000
    header[40:44] = b"\xf0\xff\xff\x7f"  # declares hours
    small.post("/v1/reconstruct", flac.getvalue()).assert_problem(413, "too-long", "longer than 10 s")
    small.post("/v1/analyze", flac.getvalue()).assert_problem(413, "too-long", "longer than 10 s")
    assert small.post("/v1/reconstruct", bytes(header)).status == 200

    calls = model.calls
    frames = 11 * 24000 // 256
    half = npy(np.zeros((128, frames), np.float16))
    small.post("/v1/synthesize", half).assert_problem(413, "too-long", "longer than 10 s")
    archive = io.BytesIO()
    np.savez_compressed(archive, melspec=np.zeros((128, 100 * frames), np.float32))
    assert len(archive.getvalue()) < 1_000_000
    small.post("/v1/synthesize", archive.getvalue()).assert_problem(413, "too-long", "exceed 10 s")
    assert model.calls == calls


def test_many_channels(small: Gateway) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros((100, 40)), 24000, format="WAV")
    small.post("/v1/reconstruct", file.getvalue(), channels="all").assert_problem(
        422, "unsuitable-input", "40 channels; at most 32"
    )
    assert small.post("/v1/reconstruct", file.getvalue()).status == 200


def test_a_broken_archive(small: Gateway) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "no array")
    small.post("/v1/synthesize", file.getvalue()).assert_problem(422, "unreadable-file", "has no array melspec")


def test_a_body_that_stops_arriving() -> None:
    model = Gated()
    with (
        running(model.transport, Limits(idle_s=0.2, concurrent=1)) as gateway,
        socket.create_connection(("127.0.0.1", gateway.port), timeout=100) as client,
    ):
        client.sendall(b"POST /v1/reconstruct HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
        answer = b""
        while block := client.recv(1000):
            answer += block
            if answer.endswith(b"}"):
                break
        assert answer.startswith(b"HTTP/1.1 408")
        gateway.wait_until_idle()


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v2/models", 404, "not-found"),
        ("POST", "/v2/models", 404, "not-found"),
        ("GET", "/..%2f..%2fapp.py", 404, "not-found"),
        ("GET", "/v1/reconstruct", 405, "method-not-allowed"),
        ("DELETE", "/v1/models", 405, "method-not-allowed"),
    ],
)
def test_addresses(small: Gateway, method: str, path: str, status: int, kind: str) -> None:
    answer = small.call(method, path)
    answer.assert_problem(status, kind)
    assert ("allow" in answer.headers) == (status == 405)


def test_accept(small: Gateway) -> None:
    for accept, media in [
        ("*/*", "audio/wav"),
        ("audio/*;q=0.5, audio/flac", "audio/flac"),
        ("audio/ogg;q=0.2, audio/mpeg;q=0.1, audio/wav;q=0", "audio/ogg"),
        ("text/html, audio/x-wav", "audio/wav"),
    ]:
        assert small.post("/v1/reconstruct", wav(0.1), {"Accept": accept}).headers["content-type"] == media
    refused = small.post("/v1/reconstruct", wav(0.1), {"Accept": "text/html"})
    refused.assert_problem(406, "not-acceptable", "Accept: text/html", "audio/wav, audio/flac, audio/mpeg, audio/ogg")


def test_keys() -> None:
    model = Gated()
    model.let_all()
    with running(model.transport, keys=ApiKeys(["alpha", "beta"])) as gateway:
        for path, method in (("/v1/reconstruct", "POST"), ("/v1/models", "GET"), ("/metrics", "GET")):
            refused = gateway.call(method, path, wav(0.1))
            refused.assert_problem(401, "unauthorized", "Authorization: Bearer KEY")
            assert refused.headers["www-authenticate"] == "Bearer"
            for key in ("gamma", "Alpha", "alpha beta", "\xe9"):
                gateway.call(method, path, wav(0.1), {"Authorization": f"Bearer {key}"}).assert_problem(
                    401, "unauthorized"
                )
            for key in ("alpha", "beta"):
                assert gateway.call(method, path, wav(0.1), {"Authorization": f"Bearer {key}"}).status == 200
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json", "/"):
            assert gateway.call("GET", path).status == 200
        schemes = gateway.call("GET", "/openapi.json").json["components"]["securitySchemes"]
        assert [scheme["scheme"] for scheme in schemes.values()] == ["bearer"]


def test_pages_of_other_origins() -> None:
    model = Gated()
    model.let_all()
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    with running(model.transport) as gateway:
        assert "access-control-allow-origin" not in gateway.call("GET", "/healthz", None, preflight).headers
        assert gateway.call("OPTIONS", "/v1/reconstruct", None, preflight).status == 405
    with running(model.transport, keys=ApiKeys(["k"]), origins=["https://a.example"]) as gateway:
        answer = gateway.call("OPTIONS", "/v1/reconstruct", None, preflight)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://a.example")
        answer = gateway.call("OPTIONS", "/v1/reconstruct", None, {**preflight, "Origin": "https://b.example"})
        assert "access-control-allow-origin" not in answer.headers
        refused = gateway.call("POST", "/v1/reconstruct", b"x", {"Origin": "https://a.example"})
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://a.example")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (ServerError("no Triton server at grpc://s:1 (x)", "start one"), 503, "the model server cannot be reached"),
        (AccessError("grpc://s:1 refuses: key abc"), 502, "does not accept the gateway's credentials"),
        (InferenceError("grpc://s:1 answered: boom"), 502, "the model server answered: boom"),
        (DeadlineError("grpc://s:1 did not answer: needs more: `Connection(timeout_s=…)`"), 504, "needs more"),
    ],
)
def test_what_the_model_server_answers(
    small: Gateway, model: Gated, error: GominError, status: int, words: str
) -> None:
    problem = problem_of(error, "grpc://s:1")
    assert (problem.status, words in problem.detail) == (status, True)
    assert "grpc://" not in problem.detail
    assert "Connection" not in problem.detail
    model.transport.fail(error)
    answer = small.post("/v1/reconstruct", wav(0.1))
    assert answer.status == status
    assert ("retry-after" in answer.headers) == (status == 503)


def test_messages_in_terms_of_http() -> None:
    said = 'a `to_gomin(mel, "ln-power")`, `force=True`, --mel-convention: `Connection(tls=True)` - x--y'
    assert in_http(said) == "a `mel-convention=ln-power`, `force=true`, mel-convention - x--y"
