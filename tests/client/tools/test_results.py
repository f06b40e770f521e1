"""A data set in shards: the same files as in one run, and an account of all of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from gomin_client.batch.inputs import STREAM
from gomin_client.batch.outputs import FileJob
from gomin_client.batch.results import ResultsFile
from gomin_client.batch.run import DONE, FAILED, SKIPPED, Outcome
from gomin_client.batch.shards import Shard, plan_shard
from gomin_client.cli.main import app
from gomin_client.errors import FileError, InferenceError, UsageError
from gomin_client.tools.results import merge
from tests.support import BIN, ROOT, assert_fails, invoke

FILES = 7
SHARDS = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, with a file that is none."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for i in range(FILES):
        (folder / f"s{i % 2}").mkdir(exist_ok=True)
        soundfile.write(folder / f"s{i % 2}" / f"{i}.wav", rng.uniform(-0.5, 0.5, 1000 * (i + 1)), 24000)
    (folder / "bad.wav").write_bytes(b"RIFF")
    return folder


def state(folder: Path, status: int) -> dict[str, Any]:
    """What `gomin-client results` prints."""
    found = invoke(app, "results", folder, "--json")
    assert found.returncode == status, found.stderr
    return dict(json.loads(found.stdout))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.wav")}


def test_shards_make_what_one_run_makes(data: Path, repository: Path, tmp_path: Path) -> None:
    def reconstruct(out: str, *options: str) -> subprocess.CompletedProcess[str]:
        return invoke(app, "reconstruct", data, "-o", tmp_path / out, "--url", f"local:{repository}", *options)

    def shard(index: int, *options: str) -> subprocess.CompletedProcess[str]:
        file = str(tmp_path / "results" / f"{index}.jsonl")
        return reconstruct("shards", "--shard", f"{index}/{SHARDS}", "--results", file, *options)

    assert reconstruct("whole").returncode == 1  # of bad.wav
    first = [shard(index) for index in (1, 2)]
    found = state(tmp_path / "results", 1)
    assert (found["shards"], found["missing_shards"], found["total"]) == (SHARDS, [3], FILES + 1)
    assert found["done"] + len(found["failed"]) + found["missing_count"] == FILES + 1
    assert found["missing_count"] > 0

    assert sorted(run.returncode for run in [*first, shard(3)]) == [0, 0, 1]
    assert contents(tmp_path / "shards") == contents(tmp_path / "whole")
    found = state(tmp_path / "results", 1)
    assert (found["complete"], found["missing_shards"], found["missing_count"]) == (False, [], 0)
    assert (found["done"], list(found["failed"])) == (FILES, ["bad.wav"])
    assert found["audio_seconds"] == pytest.approx(sum(1000 * (i + 1) for i in range(FILES)) / 24000, abs=FILES * 1e-4)
    assert found["real_time"] == pytest.approx(found["audio_seconds"] / sum(found["shard_seconds"].values()), abs=0.01)

    # resumed, once the file is mended (of the same size): nothing is made again
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*.wav")}
    (data / "bad.wav").write_bytes(b"RIFX")
    again = [shard(index, "--skip-existing") for index in range(1, SHARDS + 1)]
    assert sorted(run.returncode for run in again) == [0, 0, 1]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    found = state(tmp_path / "results", 1)
    assert (found["done"], found["skipped"], list(found["failed"])) == (FILES, 0, ["bad.wav"])
    text = invoke(app, "results", tmp_path / "results").stdout
    assert f"shards: 3 of 3\nfiles: 8 of 8: {FILES} done, 0 skipped, 1 failed\naudio: " in text
    assert f"failed: 1\n  {data}/bad.wav: " in text


def test_more_shards_than_files(data: Path, tmp_path: Path) -> None:
    """Parts without files succeed, without a model, and have results."""
    inputs = [str(data / "s0" / name) for name in ("0.wav", "2.wav")]
    for index in (1, 2, 3):
        file = ("--results", str(tmp_path / "r" / f"{index}.jsonl"))
        made = invoke(app, "analyze", *inputs, "-o", tmp_path / "out", "--shard", f"{index}/3", *file)
        assert made.returncode == 0, made.stderr
        assert ("shard 3/3: no files, there are 2" in made.stdout) == (index == 3)

    assert len(list((tmp_path / "out").iterdir())) == 2
    assert state(tmp_path / "r", 0)["complete"]


def write(path: Path, shard: Shard, statuses: Sequence[tuple[int, str]], files: int = 4, **facts: Any) -> None:
    """The results of a run: numbers of files, what became of them, and facts about the run."""
    folder = path.parent.parent / "inputs"
    jobs = [FileJob(folder / f"{i}.wav", folder / f"{i}.npz", "analyze") for i in range(files)]
    part = plan_shard(jobs, shard)
    names = {named.job: named for named in plan_shard(jobs, Shard()).jobs}
    with ResultsFile(path, part, facts) as results:
        for i, status in statuses:
            results._names[jobs[i]] = names[jobs[i]].name
            error = InferenceError("out of memory") if status == FAILED else None
            results.add(Outcome(jobs[i], status, seconds=2.0 if status == DONE else 0.0, error=error))


def test_the_last_result_of_a_file_counts(tmp_path: Path) -> None:
    file = tmp_path / "r" / "a.jsonl"
    write(file, Shard(), [(0, DONE), (1, FAILED), (2, FAILED), (3, DONE)])
    write(file, Shard(), [(0, SKIPPED), (1, DONE), (2, SKIPPED), (3, FAILED)])

    merged = merge([file])

    assert [line["status"] for _, line in sorted(merged.files.items())] == [DONE, DONE, SKIPPED, FAILED]
    assert (merged.audio_s, merged.failed) == (4.0, {"3.wav": "out of memory"})
    assert not merged.is_complete


def test_a_file_of_two_shards_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path / "r" / "1.jsonl", Shard(1, 2), [(0, DONE), (2, DONE)])
    write(tmp_path / "r" / "2.jsonl", Shard(2, 2), [(1, DONE), (3, DONE)])
    assert merge([tmp_path / "r"]).is_complete
    write(tmp_path / "r" / "2.jsonl", Shard(2, 2), [(2, SKIPPED)])

    merged = merge([tmp_path / "r"])

    assert (merged.duplicates, merged.is_complete) == (["2.wav"], False)
    assert merged.to_text().endswith("files of several shards: 1\n  2.wav")


def test_files_that_were_made_in_different_ways(tmp_path: Path) -> None:
    chain = {"model": "gomin_diffusion 1", "sampling": {"sampler": "ddim", "steps": 6}}
    for index, facts in enumerate(({**chain, "seed": 1}, {**chain, "seed": 2}, {**chain, "stop_after": 3}), 1):
        write(tmp_path / "r" / f"{index}.jsonl", Shard(index, 4), [(index - 1, DONE)], **facts)
        assert len(merge([tmp_path / "r"]).made_by) == (1 if index < 3 else 2)
    write(tmp_path / "r" / "4.jsonl", Shard(4, 4), [(3, SKIPPED)], model="gomin_gan 2")  # has made nothing

    merged = merge([tmp_path / "r"])

    assert merged.is_complete
    assert merged.made_by[1] == {**chain, "stop_after": 3}
    assert merged.to_text().endswith(
        "made in different ways: 2\n"
        "  gomin_diffusion 1, sampler ddim, steps 6\n"
        "  gomin_diffusion 1, sampler ddim, steps 6, stopped after step 3"
    )


def test_a_run_that_was_killed_can_be_continued(tmp_path: Path) -> None:
    file = tmp_path / "r" / "1.jsonl"
    write(file, Shard(), [(0, DONE), (1, DONE)])
    file.write_bytes(file.read_bytes()[:-20])
    merged = merge([file])
    assert (list(merged.files), merged.missing, merged.truncated) == (["0.wav"], ["1.wav", "2.wav", "3.wav"], [file])

    write(file, Shard(), [(0, SKIPPED), (1, SKIPPED), (2, DONE), (3, DONE)])

    found = invoke(app, "results", file)
    assert found.returncode == 0
    assert "files: 4 of 4: 3 done, 1 skipped, 0 failed" in found.stdout
    assert "warning" in found.stderr


@pytest.mark.parametrize("size", [3, 14, 60])
def test_a_run_that_was_killed_in_its_first_line_can_be_continued(tmp_path: Path, size: int) -> None:
    """That line has the names of all files: a disk may be full before it ends."""
    file = tmp_path / "1.jsonl"
    write(file, Shard(), [(0, DONE)])
    file.write_bytes(file.read_bytes()[:size])

    write(file, Shard(), [(number, DONE) for number in range(4)])

    merged = merge([file])
    assert (len(merged.files), merged.missing, merged.truncated) == (4, [], [file])


def test_results_of_different_batches_are_not_merged(tmp_path: Path) -> None:
    write(tmp_path / "r" / "1.jsonl", Shard(1, 2), [(0, DONE)])
    write(tmp_path / "r" / "2.jsonl", Shard(2, 2), [(1, DONE)], files=5)

    with pytest.raises(UsageError, match=r"4 files in 2 shards.*5 files in 2 shards.*different batches"):
        merge([tmp_path / "r"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ('{"type": "file", "name": "a", "status": "done", "audio_seconds": 1, "at_seconds": 1}\n', "without a run"),
        ("[]\n", "line 1 is not"),
        ('{"type": "run", "started": 1, "shard": "9/3", "total": 1, "digest": "", "names": []}\n', "line 1 is not"),
        ("\x00\n", "line 1 is not"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)

    assert_fails(invoke(app, "results", tmp_path / "a.jsonl"), 1, "a.jsonl", problem)


def test_results_that_are_not_there(tmp_path: Path) -> None:
    assert_fails(invoke(app, "results", tmp_path), 1, "has no results files")
    assert_fails(invoke(app, "results", tmp_path / "no.jsonl"), 1, "no.jsonl: cannot be read: No such file")


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    plan = plan_shard([FileJob(STREAM, STREAM, "analyze")], Shard())
    with ResultsFile(tmp_path / "a.jsonl", plan, {}), pytest.raises(FileError, match="another run is writing"):
        ResultsFile(tmp_path / "a.jsonl", plan, {}).__enter__()


@pytest.mark.parametrize("recipe", ["One machine", "Slurm", "Kubernetes"])
def test_recipes(data: Path, repository: Path, tmp_path: Path, recipe: str) -> None:
    """Of docs/datasets.md, without a cluster: the first part of 2, or both of them on one machine."""
    section = (ROOT / "docs" / "datasets.md").read_text().split(f"\n## {recipe}\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```(?:sh|yaml)\n(.*?)```", section, re.DOTALL)
    if recipe == "Kubernetes":
        job = yaml.safe_load(block)["spec"]
        (container,) = job["template"]["spec"]["containers"]
        assert job["completionMode"] == "Indexed"
        assert (job["completions"], container["command"]) == (16, ["sh", "-c"])
        (block,) = container["args"]
    script, count = re.subn(r"(?<=/)(16|4)\b", "2", block)
    assert count == 1
    script = script.replace("seq 4", "seq 2").replace("export GOMIN_URL=grpc://localhost:8001\n", "")
    (tmp_path / "in").symlink_to(data / "s0")
    numbers = {"SLURM_ARRAY_TASK_ID": "1", "JOB_COMPLETION_INDEX": "0", "GOMIN_URL": f"local:{repository}"}
    environment = {**os.environ, **numbers, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}

    done = subprocess.run(
        ["sh", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
    )

    assert done.returncode == 0, done.stderr
    found = state(tmp_path / "results", 0 if recipe == "One machine" else 1)
    assert (found["shards"], found["total"]) == (2, 4)
    assert found["missing_shards"] == ([] if recipe == "One machine" else [2])
    assert found["done"] == len(list((tmp_path / "out").iterdir())) == (4 if recipe == "One machine" else 2)
