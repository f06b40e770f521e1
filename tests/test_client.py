"""The client's parts that need no model: paths, URLs, audio files."""

import os
import stat
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from gomin_client import audio
from gomin_client.errors import FileError, UsageError
from gomin_client.files import appearing
from gomin_client.paths import plan_outputs
from gomin_client.transports import connect
from tests.support import EXAMPLES, run


class TestPaths:
    def test_default_is_beside_the_input(self) -> None:
        assert plan_outputs([Path("in/a.flac"), Path("b.wav")], None, "gan") == [
            Path("in/a_gan.wav"),
            Path("b_gan.wav"),
        ]

    def test_a_file_for_one_input(self) -> None:
        assert plan_outputs([Path("a.wav")], "out/x.flac", "gan") == [Path("out/x.flac")]

    @pytest.mark.parametrize("output", ["out", "out/", "v1.2/"])
    def test_a_directory_for_any_number(self, output: str) -> None:
        assert plan_outputs([Path("p/a.flac"), Path("q/b.ogg")], output, "gan") == [
            Path(output) / "a.wav",
            Path(output) / "b.wav",
        ]

    def test_an_existing_directory_with_a_dot_is_one(self, tmp_path: Path) -> None:
        (tmp_path / "v1.2").mkdir()
        assert plan_outputs([Path("a.wav")], str(tmp_path / "v1.2"), "gan") == [tmp_path / "v1.2" / "a.wav"]

    @pytest.mark.parametrize(
        ("inputs", "output", "words"),
        [
            (["a.wav", "b.wav"], "x.wav", "x.wav is one file, but there are several inputs"),
            (["a.wav"], "x.aiff", "cannot write .aiff files; known are .wav"),
            (["a.wav", "a.wav"], "out/", "a.wav is given twice"),
            (["a.wav"], "", "expected an audio file or a directory"),
            (["a.wav"], "-", "expected an audio file or a directory"),
            (["p/a.wav", "q/a.mp3"], "out/", "would both be written to out/a.wav"),
            (["a.wav"], "a.wav", "which is an input"),
            (["a.wav", "a_gan.wav"], None, "which is an input"),
        ],
    )
    def test_what_would_overwrite_or_cannot_be_written_is_refused(
        self, inputs: list[str], output: str | None, words: str
    ) -> None:
        with pytest.raises(UsageError, match=words.replace(".", r"\.")):
            plan_outputs([Path(name) for name in inputs], output, "gan")


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("grpc://host:9001", "grpc://host:9001"),
            ("grpc://host", "grpc://host:8001"),
            ("host:9001", "grpc://host:9001"),
            ("host", "grpc://host:8001"),
            ("[::1]", "grpc://[::1]:8001"),
            ("[::1]:9", "grpc://[::1]:9"),
            ("http://host:9000/", "http://host:9000"),
            ("http://host", "http://host:8000"),
            ("local:some/dir", "local:some/dir"),
            ("local:/abs", "local:/abs"),
        ],
    )
    def test_forms(self, url: str, expected: str) -> None:
        transport = connect(url)
        assert transport.url == expected
        transport.close()

    @pytest.mark.parametrize("url", ["localhost:abc", "grpc://localhost:94537", "http://localhost:0", "http://[::1]:"])
    def test_a_port_that_is_none_is_a_usage_error(self, url: str) -> None:
        with pytest.raises(UsageError, match="is not a port"):
            connect(url)

    @pytest.mark.parametrize(
        "url", ["", "grpc://", "http://", "local:", "https://host", "ftp://host", "http://host/path"]
    )
    def test_anything_else_is_a_usage_error(self, url: str) -> None:
        with pytest.raises(UsageError, match="expected grpc://HOST:PORT"):
            connect(url)


class TestAudio:
    def test_reads_and_mixes_down_as_gomin_does(self) -> None:
        for path in EXAMPLES:
            wave, rate = audio.read(path)
            expected, _ = librosa.load(path, sr=None, mono=True)
            np.testing.assert_allclose(wave, expected, rtol=0, atol=1e-7)
            assert rate == soundfile.info(path).samplerate

    def test_resamples_as_gomin_does(self) -> None:
        for path in EXAMPLES:
            wave, rate = audio.read(path)
            expected, _ = librosa.load(path, sr=24000, mono=True)
            np.testing.assert_allclose(audio.resample(wave, rate, 24000), expected, rtol=0, atol=1e-6)

    @pytest.mark.parametrize(
        ("samples", "rate", "length"), [(1, 8000, 3), (2, 96000, 1), (44100, 44100, 24000), (7, 24000, 7)]
    )
    def test_resampled_length_is_rounded_up(self, samples: int, rate: int, length: int) -> None:
        assert audio.resample(np.zeros(samples, np.float32), rate, 24000).shape == (length,)

    @pytest.mark.parametrize(
        ("name", "tolerance"), [("a.wav", 1e-4), ("a.flac", 1e-4), ("a.ogg", 0.2), ("a.mp3", 0.2), ("A.WAV", 1e-4)]
    )
    def test_writes_what_it_can_read(self, tmp_path: Path, name: str, tolerance: float) -> None:
        wave = (np.sin(np.arange(12000) / 20) * 0.5).astype(np.float32)

        audio.write(tmp_path / name, wave, 24000)

        written, rate = audio.read(tmp_path / name)
        assert rate == 24000
        np.testing.assert_allclose(written[1000:11000], wave[1000:11000], rtol=0, atol=tolerance)

    def test_what_exceeds_full_scale_is_clipped_not_wrapped(self, tmp_path: Path) -> None:
        audio.write(tmp_path / "a.wav", np.array([1.5, -1.5, 0.0], np.float32), 24000)

        np.testing.assert_allclose(audio.read(tmp_path / "a.wav")[0], [1, -1, 0], rtol=0, atol=1e-4)

    def test_an_output_that_cannot_be_written_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(FileError, match=r"a\.wav: cannot be written"):
            audio.write(tmp_path / "file" / "a.wav", np.zeros(5, np.float32), 24000)
        with pytest.raises(FileError, match=r"cannot write \.xyz"):
            audio.write(tmp_path / "a.xyz", np.zeros(5, np.float32), 24000)


class TestAppearing:
    def test_a_failure_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("old")

        def fail_half_way() -> None:
            with appearing(path) as part:
                part.write_text("half of the n")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail_half_way()

        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_permissions_follow_the_umask(self, tmp_path: Path) -> None:
        old = os.umask(0o027)
        try:
            with appearing(tmp_path / "a.txt") as part:
                part.write_text("new")
        finally:
            os.umask(old)

        assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_help_and_version() -> None:
    for program, commands in (("gomin-client", ["reconstruct", "info"]), ("gomin-export", ["gan", "diffusion"])):
        result = run(program, "--help")
        assert result.returncode == 0
        for command in commands:
            assert command in result.stdout
            assert "Example" in run(program, command, "--help").stdout or command == "info"
    assert run("gomin-client", "--version").stdout.startswith("gomin-triton ")


def test_an_unknown_option_is_an_error() -> None:
    result = run("gomin-client", "reconstruct", "a.wav", "--sped", "3")

    assert result.returncode == 2
    assert "--sped" in result.stderr
