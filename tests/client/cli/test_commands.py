"""The commands of gomin-client, through a real server: GOMIN's forms, formats, channels, streams."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
import torch

from gomin_client.cli import run as cli_run
from gomin_client.cli.progress import Display
from gomin_client.errors import InferenceError
from gomin_client.files import mels as mel_files
from gomin_client.mel.features import MelConfig, mel_spectrogram
from gomin_client.vocoder import Vocoder
from tests.support import BIN, EXAMPLES, ROOT, RunningServer, assert_fails, run

FORMS = re.findall(
    r"^\| `(gomin-client convert .*?)` \| (.*?) \|$", (ROOT / "docs/client.md").read_text(), re.MULTILINE
)
RATE = 16000


def noise(seed: int, channels: int = 1, samples: int = 4000) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, (samples, channels)).astype(np.float32)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the table in docs/client.md speaks of, in the working directory."""
    names = (
        "a.wav",
        "b.wav",
        "b.mp3",
        "inputs/input1.wav",
        "inputs/input1.mp3",
        "inputs/input2.wav",
        "inputs/sub/input3.wav",
    )
    for seed, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, noise(seed), RATE)
    mel = mel_spectrogram(noise(9)[:, 0], MelConfig())[np.newaxis]
    mel_files.write(tmp_path / "mel.pt", mel, MelConfig())
    mel_files.write(tmp_path / "mel.npy", mel, MelConfig())
    (tmp_path / "list.txt").write_text("a.wav\ninputs/input2.wav\n")
    (tmp_path / "outputs.txt").write_text("p/one.wav\np/two.wav\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_table_is_found() -> None:
    assert len(FORMS) == 15


@pytest.mark.parametrize(("command", "makes"), FORMS)
def test_every_form_of_gomins_own_program(tree: Path, server: RunningServer, command: str, makes: str) -> None:
    before = files(tree)
    program, *arguments = shlex.split(command)

    result = run(program, *arguments, env={"GOMIN_URL": server.grpc, "PATH": ""} if "--n_mels" not in command else None)

    assert result.returncode == 0, result.stderr
    assert files(tree) - before == set(makes.split())
    for name in makes.split():
        if name.endswith(".pt"):
            content = torch.load(tree / name, weights_only=True)
            assert content["n_mels"] == content["melspec"].shape[1] == (80 if "--n_mels" in command else 128)
        else:
            assert soundfile.info(tree / name).samplerate == 24000
            assert np.abs(soundfile.read(tree / name)[0]).max() > 0


def test_what_gomins_program_takes_and_ours_does_not_is_answered(tree: Path) -> None:
    convert = ("convert", "-m", "gan", "-i", "a.wav", "-o", "x.wav")
    assert_fails(
        run("gomin-client", *convert, "-p", "checkpoints/"), 2, "gomin-export gan --ckpt", "--url local:DIRECTORY"
    )
    assert_fails(run("gomin-client", *convert, "-d", "0"), 2, "choose the server with --url")
    assert_fails(run("gomin-client", "convert", "-i", "mel.pt", "-o", "x.pt"), 2, "both are mel files")
    assert_fails(run("gomin-client", "convert", "-i", "a.wav", "b.wav", "-o", "x.wav"), 2, "2 inputs and 1 outputs")


def test_through_a_mel_file_is_as_good_as_at_once(tree: Path, server: RunningServer) -> None:
    for extension in ("npz", "pt", "npy"):
        url = ("--url", server.http)
        assert run("gomin-client", "analyze", "a.wav", "-o", f"m.{extension}", *url).returncode == 0
        assert run("gomin-client", "synthesize", f"m.{extension}", "-o", f"{extension}.wav", *url).returncode == 0
        assert run("gomin-client", "reconstruct", "a.wav", "-o", "r.wav", "--no-trim", *url).returncode == 0

        np.testing.assert_array_equal(soundfile.read(f"{extension}.wav")[0], soundfile.read("r.wav")[0])


def test_analyze_needs_no_server(tree: Path) -> None:
    result = run("gomin-client", "analyze", "a.wav", "--n-mels", "80", "-f", "npy")

    assert result.returncode == 0, result.stderr
    assert np.load("a.npy").shape == (80, 24)
    assert_fails(run("gomin-client", "analyze", "a.wav", "--n-mels", "0"), 2, "mel settings: n_mels is 0")


def test_a_mel_of_other_settings_is_status_5(tree: Path, server: RunningServer) -> None:
    run("gomin-client", "analyze", "a.wav", "--win-length", "512", "-o", "m.npz")

    result = run("gomin-client", "synthesize", "m.npz", "--url", server.grpc)

    assert_fails(result, 5, "m.npz: the mel has win_length 512, model gomin_gan takes 1024")
    assert not Path("m.wav").exists()


def test_a_mel_is_the_same_alone_and_in_company(tree: Path) -> None:
    assert run("gomin-client", "analyze", "inputs/input2.wav", "-o", "alone.npz").returncode == 0
    assert run("gomin-client", "analyze", "inputs", "-o", "many/").returncode == 0

    np.testing.assert_array_equal(mel_files.read(Path("alone.npz")).mel, mel_files.read(Path("many/input2.npz")).mel)


@pytest.mark.parametrize("channels", [2, 20])
def test_every_channel_is_vocoded_on_its_own(tree: Path, server: RunningServer, channels: int) -> None:
    """Twenty are more than the server takes at once."""
    wave = noise(3, channels)
    soundfile.write("many.wav", wave, 24000, subtype="FLOAT")
    arguments = ("reconstruct", "many.wav", "--channels", "all", "--subtype", "float", "--url", server.grpc)

    result = run("gomin-client", *arguments, "-o", "out.wav")
    mono = run("gomin-client", "reconstruct", "many.wav", "--subtype", "float", "--url", server.grpc, "-o", "mono.wav")

    assert result.returncode == mono.returncode == 0, result.stderr
    written, _ = soundfile.read("out.wav", dtype="float32")
    assert written.shape == wave.shape
    with Vocoder(server.grpc) as vocoder:
        for channel in (0, 1, channels - 1):
            expected = vocoder.reconstruct(wave[:, channel], 24000)
            np.testing.assert_allclose(written[:, channel], expected, rtol=0, atol=1e-5)
        mixed = vocoder.reconstruct(wave.mean(axis=1), 24000)
    np.testing.assert_allclose(soundfile.read("mono.wav")[0], mixed, rtol=0, atol=1e-5)


def test_channels_of_one_file_share_their_noise(tree: Path, server: RunningServer) -> None:
    soundfile.write("two.wav", np.repeat(noise(3), 2, axis=1), 24000)

    result = run(
        *("gomin-client", "reconstruct", "two.wav", "-m", "diffusion", "--seed", "3", "--channels", "all"),
        *("--url", server.grpc, "-o", "out.wav", "--subtype", "float"),
    )

    assert result.returncode == 0, result.stderr
    written, _ = soundfile.read("out.wav")
    np.testing.assert_allclose(written[:, 0], written[:, 1], rtol=0, atol=1e-5)


class TestStreams:
    def pipe(self, content: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [BIN / "gomin-client", *arguments], input=content, capture_output=True, timeout=120, check=False
        )

    def test_audio_in_and_out(self, tree: Path, server: RunningServer) -> None:
        run("gomin-client", "reconstruct", EXAMPLES[0], "-o", "file.wav", "--url", server.grpc)

        result = self.pipe(EXAMPLES[0].read_bytes(), "reconstruct", "-", "-o", "-", "--url", server.grpc)

        assert result.returncode == 0, result.stderr
        assert result.stdout == Path("file.wav").read_bytes()
        assert b"- -> -  0.48 s of audio" in result.stderr

    @pytest.mark.parametrize("extension", ["npz", "npy"])
    def test_mels_in_and_out(self, tree: Path, server: RunningServer, extension: str) -> None:
        mel = self.pipe(EXAMPLES[0].read_bytes(), "analyze", "-", "-f", extension)
        audio = self.pipe(mel.stdout, "synthesize", "-", "-f", "flac", "--url", server.grpc)

        assert mel.returncode == audio.returncode == 0, audio.stderr
        assert audio.stdout.startswith(b"fLaC")

    def test_an_interrupt_while_waiting_for_input(self, tree: Path) -> None:
        command = [BIN / "gomin-client", "analyze", "-", "-o", "x.npz"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)

        assert process.returncode == 130, stderr
        assert len(stderr.splitlines()) == 1

    def test_errors(self, tree: Path, repository: Path) -> None:
        local = ("--url", f"local:{repository}")
        empty = self.pipe(b"", "reconstruct", "-", "-o", "-", *local)
        wrong = self.pipe(b"hello", "reconstruct", "-", "-o", "-", *local)
        both = self.pipe(b"", "reconstruct", "-", "-o", "-", "--json", *local)

        assert (empty.returncode, empty.stdout) == (1, b"")
        assert b"standard input is empty" in empty.stderr
        assert (wrong.returncode, wrong.stdout) == (1, b"")
        assert b"cannot be read as audio" in wrong.stderr
        assert both.returncode == 2


def test_verbose_needs_no_statistics(capsys: pytest.CaptureFixture[str]) -> None:
    vocoder = Mock(Vocoder)
    vocoder.statistics.side_effect = InferenceError("not found")

    with Display(1, quiet=False, as_json=False, to_stderr=False) as display:
        assert cli_run._statistics(vocoder, display) is None

    assert "warning: no statistics: not found" in capsys.readouterr().err


def test_verbose_shows_the_servers_timings(tree: Path, server: RunningServer) -> None:
    for url in (server.grpc, server.http):
        result = run("gomin-client", "reconstruct", "a.wav", "b.wav", "-o", "out/", "--url", url, "--verbose")

        assert re.search(
            r"2 requests, 2 items in \d calls of the model; mean per request: queue [\d.]+ ms", result.stderr
        )


def test_defaults_from_the_environment(tree: Path, server: RunningServer) -> None:
    env = {"GOMIN_URL": server.http, "GOMIN_MODEL": "diffusion", "GOMIN_JOBS": "3", "PATH": ""}

    result = run("gomin-client", "reconstruct", "a.wav", "--seed", "1", env=env)

    assert result.returncode == 0, result.stderr
    assert Path("a_diffusion.wav").is_file()
    result = run("gomin-client", "reconstruct", "a.wav", "--seed", "-1", env=env)
    assert_fails(result, 2, "seed -1: expected a whole number, 0 …")


def test_options_that_make_no_sense(tree: Path) -> None:
    for arguments, words in [
        (("reconstruct", "a.wav", "--channels", "left"), "--channels left: expected mono or all"),
        (("reconstruct", "a.wav", "-o", "x.flac", "--subtype", "float"), "--subtype float: .flac files have 16, 24"),
        (("analyze", "a.wav", "-f", "wav"), "--format wav: expected npz, npy, pt"),
        (("synthesize", "mel.npy", "-f", "npz"), "--format npz: expected wav, flac, ogg, mp3"),
        (("analyze", "a.wav", "-m", "gan"), "--model gan: give --url too"),
        (("convert", "-i", "a.wav", "-o", "x.pt", "--subtype", "16"), "--subtype 16: there is no audio to be written"),
        (("convert", "-i", "a.wav", "-o", "x.npz", "--seed", "1"), "--seed: there is nothing to be synthesized"),
        (("analyze", "a.wav", "--win-length", "1"), "win_length is 1; expected at least 2"),
        (("synthesize", "a.wav"), "that is to reconstruct, from audio to audio; use that command"),
    ]:
        assert_fails(run("gomin-client", *arguments), 2, words)


def test_without_torch_a_pt_file_says_what_to_do(tree: Path) -> None:
    program = """
import importlib.abc, sys

class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoTorch())
import gomin_client.cli.main as cli
cli.main()
"""

    result = subprocess.run(
        [sys.executable, "-c", program, "analyze", "a.wav", "-o", "x.pt"], capture_output=True, text=True, check=False
    )

    assert_fails(result, 2, "x.pt: .pt files need torch: pip install torch; .npz keeps the same without it")


class TestCompare:
    def test_two_recordings(self, tree: Path) -> None:
        same = run("gomin-client", "compare", "a.wav", "a.wav", "--json")
        other = run("gomin-client", "compare", "a.wav", "b.wav", "--json")

        (equal,), (different,) = json.loads(same.stdout), json.loads(other.stdout)
        assert (equal["log_mel_l1_db"], equal["spectral_convergence"], equal["snr_db"]) == (0, 0, None)
        assert different["log_mel_l1_db"] > 1
        assert different["snr_db"] == pytest.approx(-3, abs=1)  # unrelated noise of equal power

    def test_two_folders(self, tree: Path) -> None:
        wave, rate = soundfile.read("inputs/sub/input3.wav")
        Path("other/sub").mkdir(parents=True)
        soundfile.write("other/sub/input3.flac", wave * 0.5, rate)
        Path("inputs/input1.mp3").unlink()
        soundfile.write("other/input1.wav", noise(1), RATE)

        result = run("gomin-client", "compare", "inputs", "other")

        assert result.returncode == 1
        assert "inputs/input2.wav: has no counterpart in other" in result.stderr
        rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()[1:]}
        assert set(rows) == {"input1", "input2", "sub/input3", "mean"}
        assert rows["input2"] == ["failed"]
        assert float(rows["sub/input3"][0]) == pytest.approx(6.02, abs=0.8)  # half as loud, but where there is nothing
        assert float(rows["sub/input3"][3]) == pytest.approx(6.02, abs=0.05)

    def test_outputs_that_would_have_collided(self, tree: Path) -> None:
        Path("other").mkdir()
        for name in ("input1.wav", "input1.mp3.wav"):
            soundfile.write(f"other/{name}", noise(1), RATE)

        result = run("gomin-client", "compare", "inputs", "other", "--json")

        names = {comparison["name"]: "error" in comparison for comparison in json.loads(result.stdout)}
        assert names == {"input1": False, "input1.mp3": False, "input2": True, "sub/input3": True}

    def test_errors(self, tree: Path) -> None:
        assert_fails(run("gomin-client", "compare", "a.wav", "inputs"), 2, "one is a folder, the other a file")
        assert_fails(run("gomin-client", "compare", "a.wav", "nowhere"), 1, "nowhere: no such file or folder")
        assert_fails(run("gomin-client", "compare", "a.wav", "list.txt"), 1, "cannot be read as audio")
