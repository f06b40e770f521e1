"""Audio and mels through pipes, while they are still being made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gomin_client import Vocoder
from tests.support import BIN, EXAMPLES, RunningServer, run


def test_a_player_hears_it_while_it_is_made(server: RunningServer, tmp_path: Path) -> None:
    """The last frames are only written when audio of the first ones has been heard."""
    mel = np.random.default_rng(2).uniform(0, 1, (128, 300)).astype(np.float32)
    command = [BIN / "gomin-client", "synthesize", "-", "-o", "-", "--stream", "--format", "raw", "--window", "40",
               "--subtype", "float", "--url", server.grpc]  # fmt: skip
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(np.ascontiguousarray(mel[:, :200].T).tobytes())
        process.stdin.flush()
        early = process.stdout.read(4 * 256 * 100)
        process.stdin.write(np.ascontiguousarray(mel[:, 200:].T).tobytes())
        process.stdin.close()
        late = process.stdout.read()  # not with communicate(), which loses what this reader has read ahead

    assert process.returncode == 0, (tmp_path / "errors").read_text()
    made = np.frombuffer(early + late, "<f4")
    with Vocoder(server.grpc, window=40) as vocoder:  # windows of another size are rounded in another way
        np.testing.assert_allclose(made, vocoder.synthesize(mel), rtol=0, atol=1e-5)


def test_audio_through_pipes(server: RunningServer, tmp_path: Path) -> None:
    wave, rate = soundfile.read(EXAMPLES[0], dtype="float32")
    soundfile.write(tmp_path / "a.wav", wave, rate)
    result = subprocess.run(
        [BIN / "gomin-client", "reconstruct", "-", "-o", "-", "--stream", "--url", server.grpc],
        input=(tmp_path / "a.wav").read_bytes(), capture_output=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (tmp_path / "out.wav").write_bytes(result.stdout)
    run("gomin-client", "reconstruct", tmp_path / "a.wav", "-o", tmp_path / "b.wav", "--url", server.grpc)

    made, made_rate = soundfile.read(tmp_path / "out.wav")
    expected, expected_rate = soundfile.read(tmp_path / "b.wav")
    assert made_rate == expected_rate == 24000
    np.testing.assert_allclose(made, expected, rtol=0, atol=2 / 32768)


@pytest.mark.parametrize(
    ("options", "content", "code", "words"),
    [
        (["synthesize", "-", "-o", "-", "--stream"], b"123", 1, "ends within a frame: a frame is 512 bytes"),
        (["synthesize", "-", "-o", "-", "--stream"], b"", 1, "standard input is empty"),
        (["synthesize", "-", "-o", "-", "--stream"], b"\x93NUMPY" + bytes(600), 1, "is a numpy file"),
        (["synthesize", "-", "-o", "-", "--stream", "-f", "mp3"], b"", 2, ".mp3 needs to be complete"),
        (["synthesize", "-", "-o", "-", "--stream", "--subtype", "24"], b"", 2, "expected 16 or float"),
        (["synthesize", "-", "-o", "x.wav", "--stream"], b"", 2, "give -o -"),
        (["synthesize", "-", "-o", "-", "-f", "raw"], b"", 2, "--format raw"),
        (["reconstruct", "-", "-o", "-", "--stream"], b"noise" * 50, 1, "cannot be read as audio"),
    ],
)
def test_what_cannot_be_streamed(
    server: RunningServer, tmp_path: Path, options: list[str], content: bytes, code: int, words: str
) -> None:
    result = subprocess.run(
        [BIN / "gomin-client", *options, "--url", server.grpc], input=content, capture_output=True, cwd=tmp_path
    )  # fmt: skip

    assert result.returncode == code, result.stderr
    assert words in result.stderr.decode()
    assert list(tmp_path.iterdir()) == []
