"""gomin-client as a person uses it: real recordings, a real Triton server, a process for each command."""

import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

import gomin_client
from gomin_client.files import audio
from gomin_client.vocoder import Vocoder
from tests.support import BIN, EXAMPLES, RunningServer, assert_fails, free_ports, run

pytestmark = pytest.mark.long


def test_reconstruct_writes_what_the_library_computes(url: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "crow.wav"

    result = run("gomin-client", "reconstruct", EXAMPLES[0], "-o", target, "--url", url)

    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    written, rate = soundfile.read(target, dtype="float32")
    original = audio.read(EXAMPLES[0])
    wave, original_rate = original.mono()[0], original.rate
    with Vocoder(url) as vocoder:
        expected = vocoder.reconstruct(wave, original_rate)
    assert (rate, soundfile.info(target).subtype) == (24000, "PCM_16")
    assert len(written) == -(-len(wave) * 24000 // original_rate)
    np.testing.assert_allclose(written, np.clip(expected, -1, 1), rtol=0, atol=1.01 / 32768)


def test_no_trim_keeps_whole_frames(server: RunningServer, tmp_path: Path) -> None:
    run("gomin-client", "reconstruct", EXAMPLES[0], "-o", tmp_path / "a.wav", "--no-trim", "--url", server.grpc)
    run("gomin-client", "reconstruct", EXAMPLES[0], "-o", tmp_path / "b.wav", "--url", server.grpc)

    whole, trimmed = soundfile.read(tmp_path / "a.wav")[0], soundfile.read(tmp_path / "b.wav")[0]
    assert len(whole) % 256 == 0
    assert 0 < len(whole) - len(trimmed) <= 256
    np.testing.assert_allclose(whole[: len(trimmed)], trimmed, rtol=0, atol=1.01 / 32768)


def test_diffusion_repeats_with_its_seed(server: RunningServer, tmp_path: Path) -> None:
    # this model's mels have 32 bands: the client extracts what the model's config asks for
    common = ("gomin-client", "reconstruct", EXAMPLES[0], "--model", "diffusion", "--url", server.grpc)

    first = run(*common, "-o", tmp_path / "a.wav")
    seed = first.stdout.split()[1]
    run(*common, "-o", tmp_path / "b.wav", "--seed", seed)
    run(*common, "-o", tmp_path / "c.wav", "--seed", "1")

    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("seed ")
    a, b, c = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in "abc")
    np.testing.assert_allclose(a, b, rtol=0, atol=1.01 / 32768)  # batches are rounded in another way
    assert np.abs(a - c).max() > 0.01


def test_default_output_stands_beside_the_input(server: RunningServer, tmp_path: Path) -> None:
    source = tmp_path / "crow.flac"
    source.write_bytes(EXAMPLES[0].read_bytes())

    result = run("gomin-client", "reconstruct", source, "--url", server.grpc, "--quiet")

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crow.flac", "crow_gan.wav"]


def test_a_bad_file_does_not_stop_the_rest(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("this is not audio")
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "silent.wav", np.zeros(0), 8000)
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan]), 8000, subtype="FLOAT")
    (tmp_path / "folder.wav").mkdir()
    soundfile.write(tmp_path / "good.wav", np.zeros((900, 2)), 8000)
    names = ["text", "empty", "silent", "nan", "folder", "missing", "good"]

    result = run(
        "gomin-client", "reconstruct", *(tmp_path / f"{name}.wav" for name in names), "-o", tmp_path / "out",
        "--url", server.grpc,
    )  # fmt: skip

    assert result.returncode == 1
    *lines, summary = result.stderr.splitlines()
    assert len(lines) == 6
    for name in names[:-1]:
        assert any(line.startswith(f"gomin-client: {tmp_path / name}.wav: ") for line in lines), lines
    assert summary.startswith("1 done, 6 failed; 0.1 s of audio in ")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.wav"]


def test_a_recording_too_loud_for_float32_fails_alone(server: RunningServer, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", np.tile([[3e38], [-3e38]], (500, 2)), 44100, subtype="FLOAT")
    soundfile.write(tmp_path / "good.wav", np.zeros(900), 8000)

    result = run(
        "gomin-client", "reconstruct", tmp_path / "loud.wav", tmp_path / "good.wav", "-o", tmp_path / "out",
        "--url", server.grpc,
    )  # fmt: skip

    assert result.returncode == 1
    assert "loud.wav: " in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.wav"]


def test_odd_names(server: RunningServer, tmp_path: Path) -> None:
    source = tmp_path / "à la \udcff carte.flac"  # a byte that is no UTF-8
    source.write_bytes(EXAMPLES[0].read_bytes())
    assert run("gomin-client", "reconstruct", source, "--url", server.grpc).returncode == 0
    assert (tmp_path / "à la \udcff carte_gan.wav").is_file()
    assert_fails(run("gomin-client", "reconstruct", "a" * 300 + ".wav", "--url", server.grpc), 1, "File name too long")
    (tmp_path / "none").mkdir()
    nothing = run("gomin-client", "reconstruct", ".", "--url", server.grpc, cwd=tmp_path / "none")
    assert_fails(nothing, 2, ".: contains no audio files")
    assert_fails(run("gomin-client", "reconstruct", "a.wav", "-m", "a/b", "--url", server.grpc), 2, "no model a/b")


def test_each_bad_input_is_one_line(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("this is not audio")
    (tmp_path / "empty.wav").touch()
    for name, words in (("text", "cannot be read as audio"), ("empty", "is empty"), ("missing", "no such file")):
        result = run("gomin-client", "reconstruct", tmp_path / f"{name}.wav", "--url", server.grpc)
        assert_fails(result, 1, f"{name}.wav", words)


def test_unknown_model_and_no_server(server: RunningServer) -> None:
    unknown = run("gomin-client", "reconstruct", EXAMPLES[0], "--model", "wavenet", "--url", server.http)
    assert_fails(unknown, 2, "wavenet", "gomin_denoiser, gomin_diffusion, gomin_gan")
    (port,) = free_ports(1)
    away = run("gomin-client", "reconstruct", EXAMPLES[0], "--url", f"localhost:{port}")
    assert_fails(away, 3, f"grpc://localhost:{port}", "gomin-server", "--url local:")


@pytest.mark.parametrize(
    ("scheme", "number"), [("grpc", signal.SIGINT), ("http", signal.SIGTERM), ("http", signal.SIGHUP)]
)
def test_interrupted_it_leaves_complete_files_only(
    server: RunningServer, tmp_path: Path, scheme: str, number: signal.Signals
) -> None:
    url = getattr(server, scheme)
    # half a second, and five minutes that take the diffusion model much longer than this test can be late
    files, out = [tmp_path / "crow.flac", tmp_path / "long.flac"], tmp_path / "out"
    shutil.copy(EXAMPLES[0], files[0])
    soundfile.write(files[1], np.random.default_rng(0).uniform(-0.1, 0.1, 300 * 24000), 24000)
    chain = ["-m", "diffusion", "--sampler", "ddim", "--steps", "10"]
    command = [BIN / "gomin-client", "reconstruct", *files, "-o", f"{out}/", *chain, "--url", url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "crow.wav" not in (line := process.stdout.readline()):
        assert line, "ended before it was interrupted"

    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)

    assert process.returncode == 128 + number
    assert stderr.strip() == (
        "gomin-client: interrupted; files reported so far are complete, the others were not written; "
        "the same command with --skip-existing continues from here"
    )
    assert [path.name for path in out.iterdir()] == ["crow.wav"]


def test_a_seed_for_the_gan_is_an_error(repository: Path, tmp_path: Path) -> None:
    result = run(
        "gomin-client", "reconstruct", EXAMPLES[0], "-o", tmp_path, "--seed", "1", "--url", f"local:{repository}"
    )
    assert_fails(result, 2, "a seed has no effect")
    assert list(tmp_path.iterdir()) == []


def test_plot_is_a_picture(repository: Path, tmp_path: Path) -> None:
    picture = tmp_path / "new" / "plot.png"
    result = run(
        "gomin-client", "reconstruct", *EXAMPLES[:2], "-o", tmp_path, "--plot", picture,
        "--url", f"local:{repository}",
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(list(picture.parent.iterdir())) == 1


def test_more_than_eight_files_are_a_picture_each(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    for index in range(9):
        folder = "in/sub" if index else "in"
        soundfile.write(tmp_path / folder / f"{index}.wav", 0.1 * np.ones(3000 + 100 * index), 24000)

    result = run(
        "gomin-client", "reconstruct", "in", "-o", "out/", "--plot", "p.png", "--url", f"local:{repository}",
        cwd=tmp_path,
    )  # fmt: skip
    again = run(
        "gomin-client", "reconstruct", "in", "-o", "out/", "--plot", "p", "--url", f"local:{repository}",
        "--skip-existing", cwd=tmp_path,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    pictures = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "p").rglob("*.*"))
    assert pictures == ["p/0.png", *(f"p/sub/{index}.png" for index in range(1, 9))]
    assert all((tmp_path / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert "9 pictures in p" in result.stdout
    assert "p: not drawn: no new reconstruction was made" in again.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "p"]


def test_a_plot_overwrites_no_audio(repository: Path, tmp_path: Path) -> None:
    result = run(
        "gomin-client", "reconstruct", EXAMPLES[0], "-o", tmp_path / "out.wav", "--plot", tmp_path / "out.wav",
        "--url", f"local:{repository}",
    )  # fmt: skip

    assert_fails(result, 2, "out.wav", "expected a file name that ends with .png")
    assert list(tmp_path.iterdir()) == []


def test_programs_run_the_code_under_test() -> None:
    """Also with an environment of their own: a checkout, and not the copy that is installed."""
    where = run("python", "-c", "import gomin_client; print(gomin_client.__file__)", env={"PATH": ""})

    assert Path(where.stdout.strip()) == Path(gomin_client.__file__), where.stderr


def test_url_from_the_environment(server: RunningServer) -> None:
    result = run("gomin-client", "info", env={"GOMIN_URL": server.http, "PATH": ""})

    assert result.returncode == 0, result.stderr
    assert "\n\ngomin_gan: mel spectrogram to waveform, in one pass\n  kind: gan\n" in result.stdout
    assert "  version 1:\n    checkpoint: sha256 35f3a1ed0ed5" in result.stdout  # as checkpoints/README.md has it
    assert "    precision: fp32\n    parity: 21 of 21 cases passed, max abs error " in result.stdout
    assert "  halo: 13 frames\n  reach: 15 frames, which a window of a longer recording needs" in result.stdout
    assert "  halo: 0 frames\n  reach: 2 frames, which " in result.stdout
    assert "  halo of one denoiser step: 1 frame\n" in result.stdout
    assert "  trained with 50 timesteps\n" in result.stdout
