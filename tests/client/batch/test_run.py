"""Batches: bad files, several files in flight, resuming, output on the terminal."""

import json
import os
import pty
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gomin_client.batch.inputs import STREAM
from gomin_client.batch.outputs import FileJob
from gomin_client.batch.run import Outcome, run_jobs
from gomin_client.batch.tasks import BatchSettings
from gomin_client.cli.main import app
from gomin_client.errors import FileError
from gomin_client.files import audio
from gomin_client.mel.features import MelConfig
from tests.gated import Gate
from tests.support import BIN, RunningServer, invoke, run

pytestmark = pytest.mark.long

RATE = 24000


def wave(seed: int, samples: int = 1200) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, samples).astype(np.float32)


def test_a_temporary_copy_of_standard_input_has_its_name_in_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/my files")
    job = FileJob(STREAM, Path("a.npy"), "analyze")

    outcome = Outcome(job, error=FileError("/tmp/my files/gomin-ab12/stdin: is empty"))

    assert outcome.reason == "standard input: is empty"
    assert outcome.to_dict()["error"] == "standard input: is empty"


def make_bad_files(folder: Path) -> dict[str, str]:
    """Ten files that cannot be reconstructed; name → a word of the reason."""
    whole = wave(0)
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("not audio at all")
    for name, value in (("nan.wav", np.nan), ("inf.wav", np.inf)):
        soundfile.write(folder / name, np.append(whole, np.float32(value)), RATE, subtype="FLOAT")
    soundfile.write(folder / "rate.wav", whole, RATE)
    content = bytearray((folder / "rate.wav").read_bytes())
    content[24:28] = bytes(4)
    (folder / "rate.wav").write_bytes(content)
    soundfile.write(folder / "frames.wav", whole[:0], RATE)
    soundfile.write(folder / "header.wav", whole, RATE)
    (folder / "header.wav").write_bytes((folder / "header.wav").read_bytes()[:36])
    soundfile.write(folder / "corrupt.flac", whole, RATE)
    content = bytearray((folder / "corrupt.flac").read_bytes())
    content[90:] = np.random.default_rng(1).bytes(len(content) - 90)
    (folder / "corrupt.flac").write_bytes(content)
    (folder / "dangling.wav").symlink_to("nowhere.wav")
    (folder / "x.wav").mkdir()
    return {
        "empty.wav": "is empty",
        "text.wav": "cannot be read as audio",
        "nan.wav": "NaN or infinite",
        "inf.wav": "NaN or infinite",
        "rate.wav": "cannot be read as audio",
        "frames.wav": "contains no samples",
        "header.wav": "cannot be read as audio",
        "corrupt.flac": "cannot be read as audio",
        "dangling.wav": "is a link to a file that does not exist",
        "x.wav": "is a directory",
    }


def test_two_hundred_files_ten_of_them_bad(server: RunningServer, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(190):
        soundfile.write(folder / f"good{index:03}.wav", wave(index), RATE)
    reasons = make_bad_files(folder)
    # truncated, but good for something
    content = (folder / "good007.wav").read_bytes()
    (folder / "good007.wav").write_bytes(content[: len(content) // 2])

    result = invoke(app, "reconstruct", folder, "-o", tmp_path / "out", "--url", server.grpc, "--jobs", "4")

    assert result.returncode == 1
    outputs = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert outputs == [f"good{index:03}.wav" for index in range(190)]
    lines = result.stderr.splitlines()
    for name, reason in reasons.items():
        assert any(f"/in/{name}: " in line and reason in line for line in lines), (name, lines)
    assert any("good007.wav: is truncated; read as far as it goes, 0.02 s" in line for line in lines)
    assert lines[-1].startswith("190 done, 10 failed; ")
    assert len(lines) == 12
    assert "Traceback" not in result.stderr


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    for index in range(6):
        soundfile.write(folder / f"{index}.wav", wave(index, 2000 + 3000 * (index % 3)), RATE)
    return folder


@pytest.mark.parametrize("model", ["gan", "diffusion"])
def test_results_do_not_depend_on_what_else_is_in_flight(
    inputs: Path, server: RunningServer, tmp_path: Path, model: str
) -> None:
    chain = ("--seed", "5", "--sampler", "ddim", "--steps", "4", "--eta", "1") if model == "diffusion" else ()
    for jobs in ("1", "6"):
        arguments = ("-m", model, *chain, "--jobs", jobs, "--subtype", "float", "--url", server.grpc)
        result = invoke(app, "reconstruct", inputs, "-o", tmp_path / jobs, *arguments)
        assert result.returncode == 0, result.stderr

    for index in range(6):
        alone, together = (soundfile.read(tmp_path / jobs / f"{index}.wav")[0] for jobs in ("1", "6"))
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


def test_json(inputs: Path, repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    shutil.copytree(inputs, folder)
    (folder / "3.wav").write_bytes(b"")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/4.wav").write_bytes(b"there")

    result = invoke(
        app,
        *("reconstruct", folder, "-o", tmp_path / "out", "--url", f"local:{repository}"),
        *("--json", "--skip-existing", "--jobs", "3"),
    )

    assert result.returncode == 1
    summary = json.loads(result.stdout)
    assert {name: summary[name] for name in ("done", "skipped", "failed", "not_tried")} == {
        "done": 4,
        "skipped": 1,
        "failed": 1,
        "not_tried": 0,
    }
    assert [Path(file["input"]).name for file in summary["files"]] == [f"{index}.wav" for index in range(6)]
    assert [file["status"] for file in summary["files"]] == ["done", "done", "done", "failed", "skipped", "done"]
    assert "is empty" in summary["files"][3]["error"]
    assert summary["files"][0]["audio_seconds"] == pytest.approx(2000 / RATE, abs=1e-4)
    assert (tmp_path / "out/4.wav").read_bytes() == b"there"


def test_json_tells_what_was_not_tried_when_the_server_is_gone(inputs: Path, repository: Path, tmp_path: Path) -> None:
    broken = tmp_path / "models"
    shutil.copytree(repository, broken)
    (broken / "gomin_gan/1/model.onnx").write_bytes(b"not a model")

    result = invoke(
        app,
        *("reconstruct", inputs, "-o", tmp_path / "out", "--url", f"local:{broken}"),
        *("--json", "--jobs", "1"),
    )

    assert result.returncode == 3
    summary = json.loads(result.stdout)
    assert summary["failed"] >= 1
    assert summary["not_tried"] == 6 - summary["failed"] > 0
    assert "Traceback" not in result.stderr


def test_an_interrupted_run_is_resumed(inputs: Path, server: RunningServer, tmp_path: Path) -> None:
    arguments = ["reconstruct", inputs, "-o", tmp_path / "out", "-m", "diffusion", "--seed", "1", "--url", server.grpc]
    command = [*Gate(tmp_path / "gate", 5).client, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # the first file is done
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)

    assert process.returncode == 130
    assert "the same command with --skip-existing continues from here" in stderr
    done = {path.name for path in (tmp_path / "out").iterdir()}
    assert 1 <= len(done) < 6
    assert all(name.endswith(".wav") and not name.startswith(".") for name in done)
    resumed = run("gomin-client", *arguments, "--skip-existing")
    assert resumed.returncode == 0, resumed.stderr
    assert f", {len(done)} skipped, 0 failed" in resumed.stdout
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_a_defect_in_a_worker_ends_the_batch(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised in the calling thread; a thread that dies silently would leave that one waiting."""

    def defective(_path: Path) -> audio.AudioReader:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(audio, "AudioReader", defective)
    jobs = [FileJob(inputs / f"{index}.wav", tmp_path / f"{index}.npz", "analyze") for index in range(6)]

    with pytest.raises(ZeroDivisionError):
        run_jobs(jobs, None, MelConfig(), BatchSettings(parallel=2))


def test_a_bar_on_a_terminal_only(inputs: Path, repository: Path, tmp_path: Path) -> None:
    command = [BIN / "gomin-client", "reconstruct", inputs, "-o", tmp_path / "out", "--url", f"local:{repository}"]
    shown, terminal = pty.openpty()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    drawn = b""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            chunk = os.read(shown, 4096)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        drawn += chunk
    stdout, _ = process.communicate(timeout=120)
    os.close(shown)

    assert process.returncode == 0
    assert "6/6" in drawn.decode(errors="replace")
    assert "× real time" in drawn.decode(errors="replace")
    assert len(stdout.splitlines()) == 7  # a line for each file, and the summary
    plain = run(*map(str, command[:1]), *command[1:])
    assert plain.stderr == ""
