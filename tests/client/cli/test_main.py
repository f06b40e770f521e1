"""The commands of gomin-client, through a real server: help, mels in files, channels, streams, comparisons."""

import fcntl
import io
import json
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

import gomin_export.cli
from gomin_client.cli import main
from gomin_client.cli.main import app
from gomin_client.files import mels as mel_files
from gomin_client.vocoder import Vocoder
from tests.client.cli.conftest import RATE, noise
from tests.support import BIN, EXAMPLES, RunningServer, assert_fails, invoke, run

pytestmark = pytest.mark.long


@pytest.mark.parametrize("program", ["gomin-client", "gomin-export"])
def test_each_command_has_help_with_an_example(program: str) -> None:
    commands = {"gomin-client": app, "gomin-export": gomin_export.cli.app}[program]
    shown = run(program, "--help")

    assert shown.returncode == 0
    names = [command.name or command.callback.__name__ for command in commands.registered_commands]
    assert len(names) >= 3
    for name in names:
        assert name in shown.stdout
        assert "Example" in invoke(commands, name, "--help").stdout


def test_the_help_needs_no_heavy_packages() -> None:
    program = """
import sys
from gomin_client.cli import main
from gomin_client.cli.main import app
try:
    app(["reconstruct", "--help"])
except SystemExit:
    pass
print(sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
"""
    heavy = ["numpy", "torch", "librosa", "scipy", "soundfile", "soxr", "tritonclient", "grpc", "onnxruntime"]
    heavy += ["asyncio", "matplotlib", "pandas"]

    result = subprocess.run(
        [sys.executable, "-c", program, *heavy], capture_output=True, text=True, check=True, timeout=60
    )

    assert "--sampler" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_version() -> None:
    assert invoke(app, "--version").stdout.startswith("gomin-triton ")


def test_an_unknown_option_is_an_error() -> None:
    result = invoke(app, "reconstruct", "a.wav", "--sped", "3")

    assert result.returncode == 2
    assert "--sped" in result.stderr


def test_the_shell_completes_commands() -> None:
    env = {"_GOMIN_CLIENT_COMPLETE": "complete_bash", "COMP_WORDS": "gomin-client rec", "COMP_CWORD": "1", "PATH": ""}

    assert run("gomin-client", env=env).stdout.split() == ["reconstruct"]


def test_through_a_mel_file_is_as_good_as_at_once(tree: Path, server: RunningServer) -> None:
    for extension in ("npz", "pt", "npy"):
        url = ("--url", server.http)
        assert invoke(app, "analyze", "a.wav", "-o", f"m.{extension}", *url).returncode == 0
        assert invoke(app, "synthesize", f"m.{extension}", "-o", f"{extension}.wav", *url).returncode == 0
        assert invoke(app, "reconstruct", "a.wav", "-o", "r.wav", "--no-trim", *url).returncode == 0

        made, expected = soundfile.read(f"{extension}.wav")[0], soundfile.read("r.wav")[0]
        np.testing.assert_allclose(made, expected, rtol=0, atol=1.01 / 32768)


def test_analyze_needs_no_server(tree: Path) -> None:
    result = invoke(app, "analyze", "a.wav", "--n-mels", "80", "-f", "npy")

    assert result.returncode == 0, result.stderr
    assert np.load("a.npy").shape == (80, 24)
    assert_fails(invoke(app, "analyze", "a.wav", "--n-mels", "0"), 2, "mel settings: n_mels is 0")


def test_a_mel_of_other_settings_is_status_5(tree: Path, server: RunningServer) -> None:
    invoke(app, "analyze", "a.wav", "--win-length", "512", "-o", "m.npz")

    result = invoke(app, "synthesize", "m.npz", "--url", server.grpc)

    assert_fails(result, 5, "m.npz: the mel has win_length 512, model gomin_gan takes 1024")
    assert not Path("m.wav").exists()


def test_a_mel_is_the_same_alone_and_in_company(tree: Path) -> None:
    assert invoke(app, "analyze", "inputs/input2.wav", "-o", "alone.npz").returncode == 0
    assert invoke(app, "analyze", "inputs", "-o", "many/").returncode == 0

    np.testing.assert_array_equal(mel_files.read(Path("alone.npz")).mel, mel_files.read(Path("many/input2.npz")).mel)


@pytest.mark.parametrize("channels", [2, 20])
def test_every_channel_is_vocoded_on_its_own(tree: Path, server: RunningServer, channels: int) -> None:
    """Twenty are more than the server takes at once."""
    wave = noise(3, channels)
    soundfile.write("many.wav", wave, 24000, subtype="FLOAT")
    arguments = ("reconstruct", "many.wav", "--channels", "all", "--subtype", "float", "--url", server.grpc)

    result = invoke(app, *arguments, "-o", "out.wav")
    mono = invoke(app, "reconstruct", "many.wav", "--subtype", "float", "--url", server.grpc, "-o", "mono.wav")

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

    result = invoke(
        app,
        *("reconstruct", "two.wav", "-m", "diffusion", "--seed", "3", "--channels", "all"),
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
        invoke(app, "reconstruct", EXAMPLES[0], "-o", "file.wav", "--url", server.grpc)

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
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(b"RIFF")
        process.stdin.flush()
        while any(fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4))):  # until it has read them and waits for more
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)

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


def test_audio_far_beyond_full_scale_needs_force(tmp_path: Path, repository: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(0) * 32767, RATE, "FLOAT")
    for command, target in (("analyze", "a.npz"), ("reconstruct", "b.wav"), ("convert", "c.wav")):
        arguments = [command, tmp_path / "a.wav", "-o", tmp_path / target]
        arguments += [] if command == "analyze" else ["--url", f"local:{repository}"]
        assert_fails(invoke(app, *arguments), 5, "a.wav: audio reaches", "volume=1/32768", "--force")
        assert not (tmp_path / target).exists()
        assert invoke(app, *arguments, "--force").returncode == 0


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
        same = invoke(app, "compare", "a.wav", "a.wav", "--json")
        other = invoke(app, "compare", "a.wav", "b.wav", "--json")

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

        result = invoke(app, "compare", "inputs", "other")

        assert result.returncode == 1
        assert "inputs/input2.wav: has no counterpart in other" in result.stderr
        rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()[1:]}
        assert set(rows) == {"input1", "input2", "sub/input3", "mean"}
        assert rows["input2"] == ["failed"]
        assert float(rows["sub/input3"][0]) == pytest.approx(6.02, abs=0.8)  # half as loud, but where there is nothing
        assert float(rows["sub/input3"][3]) == pytest.approx(6.02, abs=0.05)

    @pytest.mark.parametrize("report", [None, Path("report")])
    def test_a_progress_bar_on_a_terminal_only(
        self, tree: Path, monkeypatch: pytest.MonkeyPatch, report: Path | None, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        Path("inputs/input1.mp3").unlink()
        shown = Terminal()
        monkeypatch.setattr("sys.stderr", shown)
        monkeypatch.setenv("TERM", "xterm")
        main.compare(Path("inputs"), [Path("inputs")], html=report)
        assert "3/3" in shown.getvalue()
        assert capsys.readouterr().out.splitlines()[0].split()[0] == "mel"

        quiet = io.StringIO()
        monkeypatch.setattr("sys.stderr", quiet)
        main.compare(Path("inputs"), [Path("inputs")], html=report)
        assert quiet.getvalue() == ""

    def test_outputs_that_would_have_collided(self, tree: Path) -> None:
        Path("other").mkdir()
        for name in ("input1.wav", "input1.mp3.wav"):
            soundfile.write(f"other/{name}", noise(1), RATE)

        result = invoke(app, "compare", "inputs", "other", "--json")

        names = {comparison["name"]: "error" in comparison for comparison in json.loads(result.stdout)}
        assert names == {"input1": False, "input1.mp3": False, "input2": True, "sub/input3": True}

    def test_a_report_of_several_versions(self, tree: Path) -> None:
        result = invoke(app, "compare", "a.wav", "b.wav", "b.mp3", "--html", "new/report.html")
        as_json = invoke(app, "compare", "a.wav", "b.wav", "b.mp3", "--html", "new/folder", "--json")

        assert result.returncode == as_json.returncode == 0, result.stderr + as_json.stderr
        assert result.stdout.splitlines()[-1] == "new/report.html"
        assert [found["version"] for found in json.loads(as_json.stdout)] == ["b.wav", "b.mp3"]
        assert Path("new/report.html").read_text().count("<audio ") == 3
        assert sorted(path.name for path in Path("new").iterdir()) == ["folder", "report.html"]

    def test_a_report_of_folders_with_problems(self, tree: Path) -> None:
        Path("other").mkdir()
        Path("inputs/input1.mp3").unlink()
        soundfile.write("other/input1.wav", noise(1), RATE)

        result = invoke(app, "compare", "inputs", "other", "--html", "report")

        assert result.returncode == 1
        assert len(result.stderr.splitlines()) == 2
        assert "inputs/input2.wav: has no counterpart in other" in Path("report/index.html").read_text()

    def test_errors(self, tree: Path) -> None:
        assert_fails(invoke(app, "compare", "a.wav", "b.wav", "--html", "r.pdf"), 2, "r.pdf: expected a file name")
        assert_fails(invoke(app, "compare", "a.wav", "b.wav", "--note", "x"), 2, "--note", "give --html too")
        assert_fails(invoke(app, "compare", "a.wav", "inputs"), 2, "one is a folder, the other a file")
        assert_fails(invoke(app, "compare", "a.wav", "nowhere"), 1, "nowhere: no such file or folder")
        assert_fails(invoke(app, "compare", "a.wav", "list.txt"), 1, "cannot be read as audio")
