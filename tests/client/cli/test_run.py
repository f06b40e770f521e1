"""What the commands that make files have in common: statistics, defaults, options that contradict each other."""

import json
import re
from pathlib import Path
from unittest.mock import Mock

import pytest

from gomin_client.cli import run
from gomin_client.cli.main import app
from gomin_client.cli.progress import Display
from gomin_client.errors import InferenceError
from gomin_client.vocoder import Vocoder
from tests.support import RunningServer, assert_fails, free_ports, invoke


def test_verbose_needs_no_statistics(capsys: pytest.CaptureFixture[str]) -> None:
    vocoder = Mock(Vocoder)
    vocoder.statistics.side_effect = InferenceError("not found")

    with Display(1, quiet=False, as_json=False, to_stderr=False) as display:
        assert run._statistics(vocoder, display) is None

    assert "warning: no statistics: not found" in capsys.readouterr().err


def test_verbose_shows_the_servers_timings(tree: Path, server: RunningServer) -> None:
    for url in (server.grpc, server.http):
        result = invoke(app, "reconstruct", "a.wav", "b.wav", "-o", "out/", "--url", url, "--verbose")

        assert re.search(
            r"2 requests, 2 items in \d calls of the model; mean per request: queue [\d.]+ ms", result.stderr
        )


def test_defaults_from_the_environment(tree: Path, server: RunningServer) -> None:
    env = {"GOMIN_URL": server.http, "GOMIN_MODEL": "diffusion", "GOMIN_JOBS": "3", "PATH": ""}

    result = invoke(app, "reconstruct", "a.wav", "--seed", "1", env=env)

    assert result.returncode == 0, result.stderr
    assert Path("a_diffusion.wav").is_file()
    result = invoke(app, "reconstruct", "a.wav", "--seed", "-1", env=env)
    assert_fails(result, 2, "seed -1: expected a whole number, 0 …")


def test_options_that_make_no_sense(tree: Path) -> None:
    for arguments, words in [
        (("reconstruct", "a.wav", "--channels", "left"), "--channels left: expected mono or all"),
        (("reconstruct", "a.wav", "-o", "x.flac", "--subtype", "float"), "--subtype float: .flac files have 16, 24"),
        (("analyze", "a.wav", "-f", "wav"), "--format wav: expected npz, npy, pt"),
        (("synthesize", "mel.npy", "-f", "npz"), "--format npz: expected wav, flac, ogg, mp3"),
        (("analyze", "a.wav", "-m", "gan"), "--model gan: give --url too"),
        (("convert", "-i", "a.wav", "-o", "x.pt", "--subtype", "16"), "--subtype 16: no audio is written"),
        (("convert", "-i", "a.wav", "-o", "x.npz", "--seed", "1"), "--seed: nothing is synthesized"),
        (("analyze", "a.wav", "--win-length", "1"), "win_length is 1; expected at least 2"),
        (("synthesize", "a.wav"), "use the command reconstruct, which makes audio from audio"),
    ]:
        assert_fails(invoke(app, *arguments), 2, words)


def test_a_missing_file_is_reported_before_a_missing_server(tree: Path) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"

    assert_fails(invoke(app, "reconstruct", "missing.wav", "--url", url), 1, "missing.wav: no such file")
    assert_fails(invoke(app, "reconstruct", "missing.wav", "a.wav", "--url", url), 3, url)


@pytest.mark.parametrize("name", [f"{'n' * 300}.wav", "a.wav/b.wav", f"{'n' * 300}.npz"])
def test_a_path_that_cannot_be_looked_up_is_one_failure_of_a_batch(tree: Path, repository: Path, name: str) -> None:
    command, other = ("synthesize", "mel.npy") if name.endswith(".npz") else ("reconstruct", "b.wav")
    result = invoke(app, command, name, other, "-o", "out/", "--url", f"local:{repository}")

    assert result.returncode == 1
    assert name in result.stderr
    assert "File name too long" in result.stderr or "Not a directory" in result.stderr
    assert [path.name for path in Path("out").rglob("*.wav")] == [other.replace(".npy", ".wav")]


def test_what_is_left_out_of_a_folder_is_reported(tree: Path) -> None:
    Path("in2").mkdir()
    for name in ("a.wav", "b.wav"):
        Path("in2", name).write_bytes(Path(name).read_bytes())
    for name in ("x.pdf", "y.txt", "z.txt"):
        Path("in2", name).touch()

    shown = invoke(app, "analyze", "in2", "-o", "out")
    as_json = json.loads(invoke(app, "analyze", "in2", "-o", "out", "--json").stdout)
    strict = invoke(app, "analyze", "in2", "-o", "out2", "--strict")

    assert shown.returncode == 0
    assert shown.stdout.splitlines()[-1].endswith("; 3 files left out: .pdf, .txt")
    assert (as_json["left_out"], as_json["left_out_extensions"]) == (3, [".pdf", ".txt"])
    assert_fails(strict, 2, "--strict: 3 files left out: .pdf, .txt")
    assert not Path("out2").exists()
