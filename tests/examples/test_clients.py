"""examples/clients/: each does what the Python client does, and shows errors, against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gomin_client import Vocoder
from gomin_client.files import audio
from gomin_client.mel import resampling
from tests.support import EXAMPLES, ROOT, RunningServer, free_ports, tool

pytestmark = pytest.mark.long

CLIENTS = ROOT / "examples" / "clients"
TOLERANCE = 1e-5
RATE = 24000
SEED = 2**63 + 5
NAMES = ["curl.sh", "curl.sh with ffmpeg", "node.mjs", "main.go", "client.py", "aio.py"]
BARE_SAMPLES = ["curl.sh", "node.mjs"]


@dataclass
class Example:
    """One of the programs; called with the server's address, an input and an output."""

    command: list[str]
    env: dict[str, str] | None = None
    is_grpc: bool = False

    def __call__(
        self, server: RunningServer, source: Path, target: Path, *options: str
    ) -> subprocess.CompletedProcess[str]:
        url = server.grpc.removeprefix("grpc://") if self.is_grpc else server.http
        command = [*self.command, url, str(source), str(target), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=self.env, check=False)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Example]:
    """An example by its name. The one in Go is compiled once, without network."""
    home = tmp_path_factory.mktemp("clients")

    def find(name: str) -> Example:
        if name == "node.mjs":
            return Example([tool("node"), str(CLIENTS / name)])
        if name == "main.go":
            program = home / "main"
            if not program.exists():
                env = {**os.environ, "GOPROXY": "off", "GOFLAGS": "-mod=mod", "GOCACHE": str(home / "cache")}
                command = [tool("go"), "build", "-o", str(program), str(CLIENTS / name)]
                subprocess.run(command, env=env, check=True, cwd=home, timeout=600)
            return Example([str(program)])
        if name.endswith(".py"):
            return Example([sys.executable, str(CLIENTS / name)], is_grpc=name == "aio.py")
        tool("curl")
        tool("sox")
        command = ["/bin/sh", str(CLIENTS / "curl.sh")]
        return Example(command, {"PATH": str(path_without_sox(home))} if "ffmpeg" in name else None)

    return find


def path_without_sox(home: Path) -> Path:
    """A directory with the programs that curl.sh needs, and ffmpeg, but no sox."""
    path = home / "bin"
    path.mkdir(exist_ok=True)
    for program in ["cat", "cp", "curl", "dirname", "ffmpeg", "head", "mktemp", "mv", "rm", "sed", "tail", "wc"]:
        found = tool(program)
        if not (path / program).exists():
            (path / program).symlink_to(found)
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds at the model's rate, 16 bits, two different channels; two windows where windows are used."""
    parts = [audio.read(path) for path in EXAMPLES if path.stem in ("crow", "speech", "drums")]
    wave = np.concatenate([resampling.resample(part.mono()[0], part.rate, RATE) for part in parts])
    path = tmp_path_factory.mktemp("recording") / "a.wav"
    soundfile.write(path, np.stack([wave, wave[::-1] / 2], axis=1)[: 6 * RATE + 77], RATE, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def vocoder(server: RunningServer) -> Iterator[Vocoder]:
    with Vocoder(server.grpc) as opened:
        yield opened


@pytest.fixture(scope="module")
def reconstruction(vocoder: Vocoder, recording: Path) -> np.ndarray:
    """The Python client's."""
    found = audio.read(recording)
    return vocoder.reconstruct(found.mono()[0], found.rate)


def succeeded(result: subprocess.CompletedProcess[str], target: Path) -> np.ndarray:
    """The samples that an example wrote."""
    assert result.returncode == 0, result.stderr
    assert os.listdir(target.parent) == [target.name]  # nothing is left beside it
    samples, rate = soundfile.read(target, dtype="float32")
    assert rate == RATE
    return samples


def failed(result: subprocess.CompletedProcess[str], folder: Path, *words: str) -> None:
    """Status 1, a message with these words, and no file."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    assert os.listdir(folder) == []


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("name", NAMES)
def test_a_reconstruction_is_the_python_clients(
    name: str,
    example: Callable[[str], Example],
    server: RunningServer,
    recording: Path,
    reconstruction: np.ndarray,
    out: Path,
) -> None:
    samples = succeeded(example(name)(server, recording, out / "b.wav"), out / "b.wav")

    np.testing.assert_allclose(samples, reconstruction, rtol=0, atol=TOLERANCE)


def test_a_recording_that_only_ffmpeg_reads(
    example: Callable[[str], Example],
    server: RunningServer,
    recording: Path,
    reconstruction: np.ndarray,
    tmp_path: Path,
    out: Path,
) -> None:
    """Sox is installed, but has no reader for Matroska."""
    source = tmp_path / "a.mka"
    command = [tool("ffmpeg"), "-nostdin", "-v", "error", "-i", str(recording), "-c:a", "flac", str(source)]
    subprocess.run(command, check=True, timeout=60)

    result = example("curl.sh")(server, source, out / "b.wav")

    np.testing.assert_allclose(succeeded(result, out / "b.wav"), reconstruction, rtol=0, atol=TOLERANCE)
    assert result.stderr == ""


@pytest.mark.parametrize("name", ["curl.sh", "curl.sh with ffmpeg", "client.py", "aio.py"])
def test_a_file_without_audio_is_an_error(
    name: str, example: Callable[[str], Example], server: RunningServer, tmp_path: Path, out: Path
) -> None:
    (tmp_path / "text.wav").write_text("not audio")

    failed(example(name)(server, tmp_path / "text.wav", out / "b.wav"), out, "text.wav")


@pytest.mark.parametrize("name", ["curl.sh", "curl.sh with ffmpeg", "client.py"])
def test_audio_from_a_mel_is_the_python_clients(
    name: str, example: Callable[[str], Example], server: RunningServer, vocoder: Vocoder, tmp_path: Path, out: Path
) -> None:
    wave = np.sin(np.arange(9000) / 20).astype(np.float32) / 3
    mel = vocoder.analyze(wave, RATE)
    mel.tofile(tmp_path / "mel.f32")
    np.save(tmp_path / "mel.npy", mel)

    source = tmp_path / ("mel.npy" if name == "client.py" else "mel.f32")
    samples = succeeded(example(name)(server, source, out / "b.wav"), out / "b.wav")

    np.testing.assert_allclose(samples, vocoder.synthesize(mel), rtol=0, atol=TOLERANCE)


def test_diffusion_with_a_seed_is_the_python_clients(
    example: Callable[[str], Example], server: RunningServer, tmp_path: Path, out: Path
) -> None:
    wave = np.sin(np.arange(2000) / 20).astype(np.float32) / 3
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="FLOAT")
    with Vocoder(server.grpc, model="diffusion") as diffusion:
        expected = diffusion.reconstruct(wave, RATE, seed=SEED)

    options = ("--model", "gomin_reconstruct_diffusion", "--seed", str(SEED))
    samples = succeeded(example("client.py")(server, tmp_path / "a.wav", out / "b.wav", *options), out / "b.wav")

    np.testing.assert_allclose(samples, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["node.mjs", "main.go"])
@pytest.mark.parametrize("form", ["extensible, 32 bits, 3 channels", "float, after an odd chunk", "24 bits, cut off"])
def test_wav_files_that_are_read_without_a_library(
    name: str,
    form: str,
    example: Callable[[str], Example],
    server: RunningServer,
    vocoder: Vocoder,
    tmp_path: Path,
    out: Path,
) -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, 700).astype(np.float32)
    source = tmp_path / "a.wav"
    if "extensible" in form:
        soundfile.write(source, np.stack([wave, wave / 2, -wave], axis=1), RATE, subtype="PCM_32", format="WAVEX")
    elif "float" in form:
        soundfile.write(source, wave, RATE, subtype="FLOAT")
        content = source.read_bytes()
        source.write_bytes(content[:12] + b"abcd\x03\x00\x00\x00xyz\x00" + content[12:])
    else:
        soundfile.write(source, wave, RATE, subtype="PCM_24")
        source.write_bytes(source.read_bytes()[:-401])
    found = audio.read(source)

    samples = succeeded(example(name)(server, source, out / "b.wav"), out / "b.wav")

    np.testing.assert_allclose(samples, vocoder.reconstruct(found.mono()[0], RATE), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["node.mjs", "main.go"])
def test_files_that_are_not_read_without_a_library(
    name: str, example: Callable[[str], Example], server: RunningServer, tmp_path: Path, out: Path
) -> None:
    wave = np.zeros(700, np.float32)
    soundfile.write(tmp_path / "rate.wav", wave, 44100)
    soundfile.write(tmp_path / "law.wav", wave, RATE, subtype="ULAW")
    (tmp_path / "text.wav").write_text("not audio, but longer than the header of a WAV file")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "header.wav").write_bytes((tmp_path / "law.wav").read_bytes()[:24])

    for file, words in {
        "rate.wav": ("44100 Hz", "24000 Hz", "sox"),
        "law.wav": ("format 7 of 8 bits", "expected integers of 16, 24 or 32 bits"),
        "text.wav": ("not a WAV file",),
        "empty.wav": ("not a WAV file",),
        "header.wav": ("not a complete WAV file",),
    }.items():
        failed(example(name)(server, tmp_path / file, out / "b.wav"), out, file, *words)


@pytest.mark.parametrize("name", NAMES)
def test_an_error_of_the_server_is_shown_and_an_earlier_output_is_kept(
    name: str, example: Callable[[str], Example], server: RunningServer, tmp_path: Path, out: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0, np.float32), RATE)
    (out / "b.wav").write_text("earlier")

    result = example(name)(server, tmp_path / "a.wav", out / "b.wav")

    assert (result.returncode, "no samples" in result.stderr) == (1, True), result.stderr
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("b.wav", "earlier")]


@pytest.mark.parametrize("name", BARE_SAMPLES)
def test_a_recording_that_is_too_long_for_one_request_is_an_error(
    name: str, example: Callable[[str], Example], server: RunningServer, vocoder: Vocoder, tmp_path: Path, out: Path
) -> None:
    """Its body has 11 MB: with the wrong content type, it would end the server."""
    most = vocoder.contract.max_frames
    assert most is not None
    soundfile.write(tmp_path / "a.wav", np.zeros(most * 256, np.float32), RATE)

    failed(example(name)(server, tmp_path / "a.wav", out / "b.wav"), out, f"at most {most} frames")


@pytest.mark.parametrize("name", NAMES)
def test_no_server_and_no_input(
    name: str, example: Callable[[str], Example], server: RunningServer, recording: Path, tmp_path: Path, out: Path
) -> None:
    (port,) = free_ports(1)
    nobody = RunningServer(server.process, port, port, port, server.log)

    result = example(name)(nobody, recording, out / "b.wav")
    assert result.returncode == 1
    assert "refused" in result.stderr.lower() or "connect" in result.stderr.lower(), result.stderr
    if name.endswith(".py"):
        assert f"127.0.0.1:{port}: " in result.stderr
        assert "Is the server running" in result.stderr
    assert os.listdir(out) == []

    failed(example(name)(server, tmp_path / "absent.wav", out / "b.wav"), out, "absent.wav", "no such file")


def test_a_mel_with_another_number_of_bands_is_an_error(
    example: Callable[[str], Example], server: RunningServer, tmp_path: Path, out: Path
) -> None:
    np.zeros((80, 7), np.float32).tofile(tmp_path / "mel.f32")
    np.save(tmp_path / "mel.npy", np.zeros((80, 7), np.float32))

    failed(example("curl.sh")(server, tmp_path / "mel.f32", out / "b.wav"), out, "mel.f32", "128 bands")
    failed(example("client.py")(server, tmp_path / "mel.npy", out / "b.wav"), out, "unexpected shape")


def test_go_code_is_formatted() -> None:
    result = subprocess.run(
        [tool("gofmt"), "-l", str(CLIENTS)], capture_output=True, text=True, timeout=60, check=False
    )

    assert (result.returncode, result.stdout) == (0, "")
