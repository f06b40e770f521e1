"""gomin-client calibrate, on a real server: what it measures, chooses and writes."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

import gomin_export.cli
from gomin_client import Vocoder
from gomin_client.cli.main import app
from gomin_client.errors import Interrupted
from gomin_client.tools import calibration
from tests.client.cli.conftest import RATE, noise
from tests.support import RunningServer, assert_fails, invoke

GRID = ("--samplers", "ddim,unipc", "--steps", "2, 4")


@pytest.fixture(scope="module")
def home(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one recording, and a copy of the repository that is served."""
    folder = tmp_path_factory.mktemp("calibrate")
    (folder / "in").mkdir()
    soundfile.write(folder / "in" / "a.wav", noise(0), RATE)
    shutil.copytree(repository, folder / "models")
    (folder / "models/gomin_diffusion_stream").mkdir()
    config = (folder / "models/gomin_diffusion/config.pbtxt").read_text()
    (folder / "models/gomin_diffusion_stream/config.pbtxt").write_text(config_of_twin(config))
    return folder


def config_of_twin(config: str) -> str:
    """The config of gomin_diffusion_stream, with the settings and the default chain of gomin_diffusion's."""
    return config.replace('kind" value: { string_value: "diffusion"', 'kind" value: { string_value: "diffusion_stream"')


def interrupted_after(measurements: int) -> Callable[..., Iterator[calibration.Measurement]]:
    """`Meter.measure`, with a user who presses Ctrl-C then."""
    measure = calibration.Meter.measure
    counted = itertools.count(1)

    def interrupted(*arguments: Any) -> Iterator[calibration.Measurement]:
        for measurement in measure(*arguments):
            yield measurement
            if next(counted) == measurements:
                raise Interrupted(signal.SIGINT)

    return interrupted


def calibrate(home: Path, url: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    return invoke(app, "calibrate", home / "in", "--url", url, "--measurements", home / "m.jsonl", *options)


@pytest.fixture(scope="module")
def calibrated(home: Path, server: RunningServer) -> subprocess.CompletedProcess[str]:
    options = ("--plot", home / "p.png", "--within", "150%", "--apply", home / "models", "--json")
    return calibrate(home, server.grpc, *GRID, *options)


def test_a_grid_is_measured_and_the_choice_applied(
    home: Path, server: RunningServer, calibrated: subprocess.CompletedProcess[str]
) -> None:
    assert (calibrated.returncode, calibrated.stderr) == (0, "")
    told: dict[str, Any] = json.loads(calibrated.stdout)
    chains = {(one["chain"]["sampler"], one["chain"]["steps"]): one for one in told["chains"]}
    assert chains.keys() == {("ddpm", 50), ("ddim", 2), ("ddim", 4), ("unipc", 2), ("unipc", 4)}
    full = chains["ddpm", 50]
    assert told["full_chain"] == full["chain"] == {"sampler": "ddpm", "steps": 50, "schedule": "linear"}
    assert full["to_full_db"] == 0
    assert all(one["to_full_db"] > 0 for one in chains.values() if one is not full)
    assert all(one["times_real_time"] > 0 and one["log_mel_l1_db"] > 0 for one in chains.values())
    assert (told["model"], told["recordings"], told["url"]) == ("gomin_diffusion", 1, server.grpc)
    near = [one for one in chains.values() if one["to_full_db"] <= 1.5 * full["log_mel_l1_db"]]
    fewest = min(one["chain"]["steps"] for one in near)
    nearest = min((one for one in near if one["chain"]["steps"] == fewest), key=lambda one: one["to_full_db"])
    assert told["chosen"] == nearest != full
    assert (home / "p.png").read_bytes().startswith(b"\x89PNG")

    configs = [home / "models" / model / "config.pbtxt" for model in ("gomin_diffusion", "gomin_diffusion_stream")]
    assert told["applied"] == [str(config) for config in configs]
    assert config_of_twin(configs[0].read_text()) == configs[1].read_text()
    default = invoke(app, "info", "--url", f"local:{home / 'models'}", "--json")
    (model,) = (one for one in json.loads(default.stdout)["models"] if one["name"] == "gomin_diffusion")
    written = {name: value for name, value in model["sampling"]["default"].items() if value is not None}
    assert written == nearest["chain"]
    verified = invoke(gomin_export.cli.app, "verify", "--repository", home / "models", "--model", "diffusion")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_again_it_measures_nothing_and_agrees(
    home: Path, server: RunningServer, calibrated: subprocess.CompletedProcess[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = json.loads(calibrated.stdout)
    before = (home / "m.jsonl").read_bytes()
    monkeypatch.setattr(calibration, "synthesizer", lambda *_: pytest.fail)  # what would send requests

    again = calibrate(home, server.grpc, *GRID, "--within", "150%")
    slow = calibrate(home, server.grpc, *GRID, "--rtf-target", "1e-9")
    fast = calibrate(home, server.grpc, *GRID, "--rtf-target", "1e9")

    assert (again.returncode, again.stderr) == (0, "")
    title, count, head, *rows, _, choice = again.stdout.splitlines()
    assert title == f"gomin_diffusion 1 at {server.grpc}, seed 0"
    assert count == f"1 recording, 5 chains, 5 measurements; {home / 'm.jsonl'} has 5 of them"
    assert "× real time" in head
    assert [row[2:].split()[0] for row in rows] == [one["chain"]["sampler"] for one in told["chains"]]
    assert [row[0] == "*" for row in rows] == [one["is_optimal"] for one in told["chains"]]
    chain = told["chosen"]["chain"]
    assert choice.startswith(f"chosen: {chain['sampler']}, {chain['steps']} steps")
    assert f"--sampler {chain['sampler']} --steps {chain['steps']} --schedule linear" in choice
    assert "chosen: ddpm, 50 steps" in slow.stdout  # the nearest of those that are fast enough
    assert_fails(fast, 2, "--rtf-target 1e+09: no chain is that fast; the fastest is ")
    assert fast.stdout.count("\n") == again.stdout.count("\n") - 1  # the table is complete
    assert (home / "m.jsonl").read_bytes() == before

    twin = home / "models/gomin_diffusion_stream/config.pbtxt"
    for old, new, is_skipped in (
        ("parity", "another_parity", False),
        ("checkpoint_sha256.1", "checkpoint_sha256.2", True),
    ):
        config = twin.read_text()
        assert f"gomin.{old}" in config
        twin.write_text(config.replace(f"gomin.{old}", f"gomin.{new}"))
        applied = calibrate(home, server.grpc, *GRID, "--within", "150%", "--apply", home / "models")
        assert applied.returncode == 0
        assert (f"warning: {twin}: is of another checkpoint; its default" in applied.stderr) == is_skipped
        assert (f"{twin}: has this default chain now" in applied.stdout) != is_skipped
        twin.write_text(config)


def test_interrupted_it_continues(
    home: Path, server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("--measurements", tmp_path / "m.jsonl", "--samplers", "ddim,fast", "--steps", "2", "--eta", "0.5")
    with monkeypatch.context() as patch:
        patch.setattr(calibration.Meter, "measure", interrupted_after(2))
        first = calibrate(home, server.http, *command)
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    second = calibrate(home, server.http, *command)

    words = f"2 of 3 measurements are in {tmp_path / 'm.jsonl'}; the same command continues from here"
    assert_fails(first, 128 + signal.SIGINT, f"interrupted; {words}")
    assert len(lines) == 3
    assert second.returncode == 0, second.stderr
    assert "has 2 of them" in second.stdout
    assert re.search(r"ddim +2 +0\.5 ", second.stdout)
    assert (tmp_path / "m.jsonl").read_text().splitlines()[:3] == lines
    assert_fails(calibrate(home, server.http, *command, "--seed", "1"), 1, "has measurements with another seed")


def test_a_search_finds_timesteps_and_continues_where_it_was_interrupted(
    home: Path, server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = ("--samplers", "ddim,fast", "--steps", "2", "--search", "2", "--search-chains", "8")
    command = (*search, "--measurements", tmp_path / "m.jsonl", "--within", "1000%")
    shutil.copytree(home / "models", tmp_path / "models")
    with monkeypatch.context() as patch:
        patch.setattr(calibration.Meter, "measure", interrupted_after(5))  # 3 of the grid
        first = calibrate(home, server.http, *command)
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    second = calibrate(home, server.http, *command, "--json", "--apply", tmp_path / "models")
    monkeypatch.setattr(calibration, "synthesizer", lambda *_: pytest.fail)  # what would send requests
    third = calibrate(home, server.http, *command)

    assert_fails(first, 128 + signal.SIGINT, f"all measurements so far are in {tmp_path / 'm.jsonl'}; the same command")
    assert (len(lines), (second.returncode, second.stderr)) == (6, (0, ""))
    assert (tmp_path / "m.jsonl").read_text().splitlines()[:6] == lines
    told: dict[str, Any] = json.loads(second.stdout)
    (found,) = told["searches"]  # fast takes no timesteps
    assert found["start"] == {"sampler": "ddim", "steps": 2, "schedule": "linear", "eta": 0}
    assert found["chain"] == found["start"] | {"timesteps": found["chain"]["timesteps"]}
    assert found["to_full_db"] < found["start_to_full_db"]
    assert found["chains"] == 8
    chains = [one["chain"] for one in told["chains"]]
    assert (len(chains), found["start"] in chains, found["chain"] in chains) == (4, True, True)
    assert told["chosen"]["chain"] == found["chain"]  # the nearest of those with the fewest steps
    with Vocoder(f"local:{tmp_path / 'models'}", "diffusion") as vocoder:
        assert vocoder.sampling is not None
        assert vocoder.sampling.to_parameters() == found["chain"]

    assert (third.returncode, third.stderr) == (0, "")
    change = f"{found['start_to_full_db']:.3f} to {found['to_full_db']:.3f} dB from the full chain"
    assert f"search: ddim, 2 steps, eta 0: 8 chains, {change}" in third.stdout.splitlines()
    assert f"--timesteps {found['chain']['timesteps']}" in third.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--search", "6", "--samplers", "fast"], "--search 6: no sampler of the grid takes timesteps: add ddim, dpm"),
        (["--search", "51"], "steps 51: no sampler of the grid takes it"),
        (["--search", "x"], "--search x: expected whole numbers, with commas between them"),
        (["--search", "6", "--search-chains", "1"], "--search-chains 1: expected 2 or more"),
        (["--search-chains", "9"], "--search-chains 9: is a limit of --search: give that too"),
        (["--timesteps", "9,20"], "timesteps 9,20: no sampler of the grid takes it: timesteps: 20 follows 9"),
        (["--within", "5%", "--rtf-target", "1"], "give one of them"),
        (["--within", "5"], "--within 5: expected a percentage, such as 5%"),
        (["--rtf-target", "0"], "--rtf-target 0: expected a finite number above 0"),
        (["--apply", "models"], "give --rtf-target or --within too"),
        (["--steps", "5,x"], "--steps 5,x: expected whole numbers, with commas between them"),
        (["--steps", "51", "--samplers", "ddim"], "steps 51: no sampler of the grid takes it"),
        (["--samplers", ","], "--samplers ,: expected names"),
        (["--plot", "a.jpg"], "--plot a.jpg: expected a file name that ends with .png"),
        (["--model", "gan"], "model gomin_gan has no sampling chain"),
        (["--seed", "-1"], "seed -1: expected a whole number"),
    ],
)
def test_bad_options(home: Path, repository: Path, tmp_path: Path, options: list[str], words: str) -> None:
    unwritten = tmp_path / "m.jsonl"

    assert_fails(calibrate(home, f"local:{repository}", *options, "--measurements", unwritten), 2, words)
    assert not unwritten.exists()


def test_it_applies_to_the_repository_that_is_served_only(home: Path, repository: Path, tmp_path: Path) -> None:
    command = (f"local:{repository}", "--within", "5%", "--measurements", tmp_path / "m.jsonl", "--apply", tmp_path)
    config = tmp_path / "gomin_diffusion" / "config.pbtxt"

    assert_fails(calibrate(home, *command), 2, f"--apply {tmp_path}: has no gomin_diffusion/config.pbtxt")
    config.parent.mkdir()
    text = (repository / "gomin_diffusion" / "config.pbtxt").read_text()
    config.write_text(re.sub('(checkpoint_sha256.1" value: { string_value: ")....', r"\g<1>0000", text))
    assert_fails(calibrate(home, *command), 2, "its gomin_diffusion is not version 1 at local:")
    in_other_lines = text.replace('key: "gomin.steps"', 'key:  "gomin.steps"')
    config.write_text(in_other_lines)
    assert_fails(calibrate(home, *command), 1, "the default chain is not in the lines that gomin-export writes")
    config.write_text(text)
    twin = tmp_path / "gomin_diffusion_stream" / "config.pbtxt"
    twin.parent.mkdir()
    twin.write_text(config_of_twin(in_other_lines))
    assert_fails(calibrate(home, *command), 1, f"{twin}: the default chain is not in the lines that gomin-export")
    assert not (tmp_path / "m.jsonl").exists()
