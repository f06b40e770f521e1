"""docs/http.md and the two lines of README: requests run, answers, errors and windows are as the page says."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tritonclient.http as triton

from gomin_client import Vocoder
from gomin_client.files import audio
from tests.support import ROOT, RunningServer, tool

PAGE = ROOT / "docs" / "http.md"
TOLERANCE = 1e-5
RATE = 24000
BINARY = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"}
JSON = {"Content-Type": "application/json"}
# of the test of windows. In windows of fewer than 128 frames, ONNX Runtime sums in another order.
FRAMES = 281
WINDOW = 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run: a.wav, half a second of speech at its own rate, and a24.wav at the model's."""
    home = tmp_path_factory.mktemp("page")
    tool("curl")
    speech = audio.read(ROOT / "examples" / "speech.flac")
    soundfile.write(home / "a.wav", speech.mono()[0, 10000:20000], speech.rate)
    subprocess.run([tool("sox"), "a.wav", "-r", str(RATE), "a24.wav"], cwd=home, check=True)
    return home


@pytest.fixture(scope="module")
def vocoder(server: RunningServer) -> Iterator[Vocoder]:
    with Vocoder(server.grpc) as opened:
        yield opened


def shell(commands: str, server: RunningServer, folder: Path) -> str:
    """The output of commands of a page, sent to this server."""
    command = ["bash", "-euo", "pipefail", "-c", addressed(commands, server)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, f"{commands}\n{result.stderr}"
    return result.stdout


def addressed(code: str, server: RunningServer) -> str:
    ports = {8000: server.http_port, 8001: server.grpc_port, 8002: server.metrics_port}
    return re.sub(r"localhost:(800[012])", lambda match: f"127.0.0.1:{ports[int(match[1])]}", code)


def test_the_page(server: RunningServer, vocoder: Vocoder, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands and its Python in page order; the output of commands where it is shown."""
    monkeypatch.chdir(folder)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    namespace: dict[str, object] = {}
    shown = 0
    for (language, code), (following, expected) in itertools.pairwise([*blocks, ("", "")]):
        if language == "python":
            exec(compile(addressed(code, server), str(PAGE), "exec"), namespace)
        elif language == "sh":
            output = shell(code, server, folder)
            if following in ("json", "text"):
                pattern = re.escape(expected.strip()).replace("…", ".*")
                assert re.fullmatch(pattern, output.strip(), re.DOTALL), f"{code}\n{output}"
                shown += 1
    assert shown == sum(language in ("json", "text") for language, _ in blocks) > 3

    wave = np.asarray(namespace["wave"], np.float32)
    served = Page(server, "gomin_mel", "mel").infer(audio=wave[np.newaxis])
    np.testing.assert_allclose(namespace["mel"], served, rtol=0, atol=1e-6)
    sent = np.fromfile("a.f32", np.float32)
    expected_audio = vocoder.reconstruct(sent, RATE)
    np.testing.assert_allclose(soundfile.read("b.wav")[0], expected_audio, rtol=0, atol=TOLERANCE)
    assert namespace["reconstruction"] == Path("b.f32").read_bytes()
    with Vocoder(server.grpc, model="diffusion", sampler="fast") as diffusion:  # the request that asks for it
        expected_audio = diffusion.reconstruct(sent, RATE, seed=7)
    reply = Path("reply").read_bytes()
    samples = np.frombuffer(reply[reply.index(b"]}") + 2 :][-1024 * (1 + len(sent) // 256) :], np.float32)
    np.testing.assert_allclose(samples[: len(sent)], expected_audio, rtol=0, atol=TOLERANCE)


def two_lines() -> str:
    """The commands of README for a machine with curl and sox."""
    blocks = re.findall(r"^```\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if block.startswith("sox "))
    assert len(block.replace("\\\n", "").splitlines()) == 2
    return block


def test_the_two_lines_of_the_readme(server: RunningServer, vocoder: Vocoder, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes((folder / "a.wav").read_bytes())

    shell(two_lines(), server, tmp_path)

    samples, rate = soundfile.read(tmp_path / "b.wav", dtype="float32")
    sent = np.fromfile(tmp_path / "a.f32", np.float32)
    assert rate == RATE
    assert len(samples) == len(sent)
    np.testing.assert_allclose(samples, vocoder.reconstruct(sent, RATE), rtol=0, atol=TOLERANCE)


def test_if_the_request_fails_the_two_lines_write_no_recording(server: RunningServer, tmp_path: Path) -> None:
    """No error message is taken for samples."""
    soundfile.write(tmp_path / "a.wav", np.zeros(0, np.float32), RATE)

    command = ["bash", "-c", addressed(two_lines(), server)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode != 0
    assert "error: 400" in result.stderr or "error: 500" in result.stderr, result.stderr
    assert "no samples" in (tmp_path / "reply").read_text()
    assert not (tmp_path / "b.wav").exists()


def one_tensor(**changed: object) -> bytes:
    tensor = {"name": "mel", "shape": [1, 128, 1], "datatype": "FP32", "data": [0] * 128} | changed
    return json.dumps({"inputs": [tensor]}).encode()


def diffusion_request(**parameters: object) -> bytes:
    tensors = [{"name": "audio", "shape": [1, 1, 1], "datatype": "FP32", "data": [0]},
               {"name": "seed", "shape": [1, 1], "datatype": "UINT64", "data": [7]}]  # fmt: skip
    return json.dumps({"inputs": tensors, "parameters": parameters}).encode()


# the requests of the rows of the table of errors: model or path, body, headers
REQUESTS: list[tuple[str, bytes | None, dict[str, str]]] = [
    ("gomin_reconstruct", b"", BINARY),
    ("gomin_reconstruct", np.full(500, np.nan, np.float32).tobytes(), BINARY),
    ("gomin_reconstruct", bytes(1002), BINARY),
    ("gomin_reconstruct", bytes(4 * 256 * 10922), BINARY),
    ("gomin_gan", bytes(512 * 10923), BINARY),
    ("gomin_gan", one_tensor(shape=[1, 128, 0], data=[]), JSON),
    ("gomin_reconstruct_diffusion", bytes(1000), BINARY),
    ("gomin_mel", bytes(1000), BINARY),
    ("gomin_gan", one_tensor(name="mal"), JSON),
    ("gomin_gan", b'{"inputs": []}', JSON),
    ("gomin_gan", one_tensor(datatype="INT32"), JSON),
    ("gomin_gan", one_tensor(shape=[1, 64, 2]), JSON),
    ("gomin_gan", one_tensor(shape=[17, 128, 1], data=[0] * 128 * 17), JSON),
    ("gomin_reconstruct_diffusion", diffusion_request(sampler="no-such"), JSON),
    ("gomin_reconstruct_diffusion", diffusion_request(step=3), JSON),
    ("gomin_none", bytes(512), BINARY),
    ("gomin_gan/versions/9", bytes(512), BINARY),
    ("gomin_gan", None, {}),
    ("gomin_gan", one_tensor(data=[0]), JSON),
    ("gomin_gan", one_tensor(shape=[1, -128, 1]), JSON),
    ("gomin_gan", one_tensor().replace(b"[0, ", b"[1e999, "), JSON),
    ("gomin_gan", bytes(512), {"Content-Type": "application/octet-stream"}),
    ("gomin_gan", b"\xff" * 512, BINARY),
]


def answer_to(server: RunningServer, model: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, str]:
    request = urllib.request.Request(f"{server.http}/v2/models/{model}/infer", body, headers)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    return refused.value.code, json.loads(refused.value.read())["error"]


def test_the_table_of_errors(server: RunningServer) -> None:
    """Each row is what the server answers; `…` replaces the rest of a message."""
    rows = re.findall(r"^\| (\d{3}) \| `(.*?)` \|", PAGE.read_text(), re.MULTILINE)
    rows = [row for row in rows if row[0] != "503"]  # tests/server/test_queues.py
    answers = [answer_to(server, *request) for request in REQUESTS]

    for (status, message), (code, text) in itertools.zip_longest(rows, answers, fillvalue=("", "")):
        plain = re.sub(r"^\[request id: \S+\] ", "", str(text))
        assert str(code) == status, f"{code} {text}"
        assert re.fullmatch(re.escape(message).replace("…", ".*"), plain, re.DOTALL), plain


class Page:
    """The page's recipe for windows, with tritonclient."""

    def __init__(self, server: RunningServer, model: str, output: str) -> None:
        self.client = triton.InferenceServerClient(server.http.removeprefix("http://"))
        parameters = self.client.get_model_config(model)["parameters"]
        self.settings = {
            name.removeprefix("gomin."): value["string_value"]
            for name, value in parameters.items()
            if name.startswith("gomin.")
        }
        self.model, self.output = model, output
        self.hop = int(self.settings["hop_length"])

    def infer(self, parameters: dict[str, object] | None = None, **tensors: np.ndarray) -> np.ndarray:
        """The output of one item: (rows, length)."""
        inputs = []
        for name, array in tensors.items():
            datatype = {"float32": "FP32", "uint64": "UINT64", "int64": "INT64"}[str(array.dtype)]
            inputs.append(triton.InferInput(name, [1, *array.shape], datatype))
            inputs[-1].set_data_from_numpy(array[np.newaxis])
        return self.client.infer(self.model, inputs, parameters=parameters).as_numpy(self.output)[0]

    def joined(self, reach: int, per_frame: int, infer: Callable[[int, int], np.ndarray]) -> np.ndarray:
        """Windows from frame `first` to frame `end`, trimmed and joined."""
        parts = []
        for kept in range(0, FRAMES, WINDOW):
            first = max(0, kept - reach)
            part = infer(first, kept + WINDOW + reach)
            parts.append(part[:, (kept - first) * per_frame : (kept - first + WINDOW) * per_frame])
        return np.concatenate(parts, axis=1)


def test_models_without_a_chain_ignore_parameters_of_requests(server: RunningServer) -> None:
    audio = np.sin(np.arange(2000, dtype=np.float32) / 20)[np.newaxis] / 3
    for model, output in (("gomin_reconstruct", "reconstruction"), ("gomin_mel", "mel")):
        page = Page(server, model, output)
        answer = page.infer({"sampler": "ddim", "steps": 3, "no-such": 1}, audio=audio)
        np.testing.assert_array_equal(answer, page.infer(audio=audio))


def test_the_front_end_takes_more_items_than_the_networks(server: RunningServer) -> None:
    page = Page(server, "gomin_mel", "mel")
    audio = np.zeros((17, 1, 300), np.float32)
    tensor = triton.InferInput("audio", list(audio.shape), "FP32")
    tensor.set_data_from_numpy(audio)

    assert page.client.infer("gomin_mel", [tensor]).as_numpy("mel").shape == (17, int(page.settings["n_mels"]), 2)


@pytest.mark.parametrize("model", ["gomin_reconstruct", "gomin_mel", "gomin_gan", "gomin_diffusion"])
def test_windows_of_the_page_equal_the_whole(model: str, server: RunningServer) -> None:
    """Three windows, so that every rule matters: reach, both ends, samples beyond the last whole frame."""
    output = {"gomin_reconstruct": "reconstruction", "gomin_mel": "mel"}.get(model, "audio")
    page = Page(server, model, output)
    hop, halo = page.hop, int(page.settings["halo_frames"])
    mel_reach = -(-int(page.settings["n_fft"]) // 2 // hop)
    rng = np.random.default_rng(0)
    if output in ("reconstruction", "mel"):
        wave = rng.uniform(-0.1, 0.1, (1, hop * (FRAMES - 1) + 77)).astype(np.float32)
        reach = mel_reach + (halo if output == "reconstruction" else 0)
        whole = page.infer(audio=wave)
        parts = page.joined(
            reach,
            hop if output == "reconstruction" else 1,
            lambda first, end: page.infer(audio=wave[:, first * hop : end * hop]),
        )
    else:
        mel = rng.uniform(0, 0.5, (int(page.settings["n_mels"]), FRAMES)).astype(np.float32)
        chain: dict[str, object] | None = None
        if model == "gomin_diffusion":
            chain = {"sampler": "ddim", "steps": 3}
            halo *= 3

        def infer(first: int, end: int) -> np.ndarray:
            tensors = {"mel": mel[:, first:end]}
            if chain:
                tensors |= {"seed": np.array([2**63 + 5], np.uint64), "first_sample": np.array([first * hop])}
            return page.infer(chain, **tensors)

        whole = infer(0, FRAMES)
        parts = page.joined(halo, hop, infer)

    assert parts.shape == whole.shape
    np.testing.assert_allclose(parts, whole, rtol=0, atol=TOLERANCE)


def test_all_parameters_are_described(server: RunningServer) -> None:
    """Every setting that a client may read is in the table of settings."""
    text = PAGE.read_text()
    for model in ("gomin_gan", "gomin_diffusion", "gomin_mel", "gomin_reconstruct", "gomin_reconstruct_diffusion"):
        parameters = Page(server, model, "").settings
        missing = [name for name in parameters if "." not in name and f"`gomin.{name}`" not in text]
        assert missing == [], model


def test_the_tools_that_the_page_needs_are_named() -> None:
    for name in os.listdir(ROOT / "examples" / "clients"):
        assert f"{name} " in PAGE.read_text(), name
