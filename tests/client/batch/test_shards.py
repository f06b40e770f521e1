"""Parts of a batch: together the whole, balanced, and the same on all machines."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from gomin_client.batch.outputs import FileJob
from gomin_client.batch.shards import Shard, plan_shard
from gomin_client.cli.main import app
from gomin_client.errors import UsageError
from tests.support import assert_fails, invoke


def jobs_of(folder: Path, sizes: dict[str, int]) -> list[FileJob]:
    """A job for each file of these sizes, which are made."""
    for name, size in sizes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    return [FileJob(folder / name, folder / "out" / name, "reconstruct") for name in sizes]


def names(jobs: list[FileJob], count: int) -> list[list[str]]:
    """The names of the jobs of each part."""
    return [[named.name for named in plan_shard(jobs, Shard(index, count)).jobs] for index in range(1, count + 1)]


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "a/4", "1.0/4", "1 /4", "٣/4"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"--shard {text}"):
        Shard.parse(text)


def test_parts_are_balanced_and_together_the_whole(tmp_path: Path) -> None:
    rng = random.Random(0)
    sizes = {f"{i % 7}/{i:03}.wav": int(rng.lognormvariate(7, 1)) for i in range(200)}
    jobs = jobs_of(tmp_path, sizes)
    for count in (1, 3, 16):
        parts = names(jobs, count)
        assert sorted(name for part in parts for name in part) == sorted(sizes)
        loads = [sum(sizes[name] for name in part) for part in parts]
        assert max(loads) - min(loads) <= max(sizes.values())
        assert max(loads) <= 4 / 3 * max(sum(sizes.values()) / count, max(sizes.values()))
        order = list(sizes)
        assert all(part == sorted(part, key=order.index) for part in parts)


def test_parts_depend_on_names_and_sizes_alone(tmp_path: Path) -> None:
    """Not on the order of the listing, nor on where the files are."""
    sizes = {f"{name}.wav": 100 for name in ("a", "B", "ä", "z", "b/a", "b-a", "日", "\udcff", "c")}
    here, there = jobs_of(tmp_path / "here", sizes), jobs_of(tmp_path / "mnt" / "x" / "there", sizes)
    random.Random(1).shuffle(there)

    assert [set(part) for part in names(here, 4)] == [set(part) for part in names(there, 4)]
    assert plan_shard(here, Shard(1, 4)).digest == plan_shard(there, Shard(2, 4)).digest
    assert plan_shard(here, Shard(1, 4)).digest != plan_shard(here[1:], Shard(1, 4)).digest
    expected = [["B.wav", "\udcff.wav", "c.wav"], ["a.wav", "z.wav"], ["ä.wav", "b-a.wav"], ["b/a.wav", "日.wav"]]
    assert names(here, 4) == expected  # in the order of bytes, one to each part in turn


def test_missing_and_empty_files_are_spread_too(tmp_path: Path) -> None:
    """Each of them is an error that somebody has to report."""
    jobs = [FileJob(tmp_path / f"{i}.wav", tmp_path / f"{i}.flac", "reconstruct") for i in range(8)]

    assert [len(part) for part in names(jobs, 4)] == [2, 2, 2, 2]


def test_what_cannot_be_divided_is_refused(tmp_path: Path, repository: Path) -> None:
    local = ("--url", f"local:{repository}")
    (tmp_path / "a.wav").write_bytes(b"")
    a = str(tmp_path / "a.wav")

    assert_fails(invoke(app, "analyze", "-", "--shard", "1/2"), 2, "--shard 1/2", "standard input")
    assert_fails(invoke(app, "analyze", a, "--shard", "0/2"), 2, "--shard 0/2", "counted from 1")
    plot = ("--plot", str(tmp_path / "p.png"))
    assert_fails(invoke(app, "reconstruct", a, "--shard", "1/2", *plot, *local), 2, "--plot with --shard 1/2")
    diffusion = ("--model", "diffusion")
    assert_fails(invoke(app, "reconstruct", a, "--shard", "1/1", *diffusion, *local), 2, "all parts the same --seed")
    results = ("--results", a)
    assert_fails(invoke(app, "analyze", a, *results), 2, "a.wav is an input or an output")
