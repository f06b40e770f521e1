"""What `make bench` is made of, on the demo model; the figures themselves are never asserted."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import latency, machine, report, startup
from benchmarks.models import Models
from benchmarks.timing import Measured, compare
from benchmarks.worker import Worker
from gomin_client.contract.model import DENOISER_MODEL, GAN_MODEL
from gomin_client.transports.registry import connect
from tests.support import BIN, RunningServer


@pytest.fixture(scope="module")
def comparison(repository: Path, server: RunningServer) -> dict[str, object]:
    said: list[str] = []
    contenders = {
        "ONNX Runtime": ("onnxruntime", str(repository / "gomin_gan/1/model.onnx")),
        "gomin-triton, in-process": ("transport", f"local:{repository}"),
        "gomin-triton, gRPC": ("transport", server.grpc),
    }
    measured = compare(
        {
            name: lambda kind=kind, place=place: Worker(kind, place, GAN_MODEL, quick=True)
            for name, (kind, place) in contenders.items()
        },
        frames=(6,),
        rounds=2,
        say=said.append,
    )
    assert said[-1].startswith("  round 2 of 2: ")
    return {"title": "A try", "gflop": 2.0, "in_chart": True, "contenders": measured}


def test_contenders_take_turns(comparison: dict[str, dict[str, dict[str, float]]]) -> None:
    first, *others = comparison["contenders"].values()

    assert first["times_as_fast"] == 1
    assert len(others) == 2
    for figures in (first, *others):
        assert figures["seconds"] > 0
        assert figures["cpu_seconds"] > 0
        assert figures["rounds"] == 2
        assert 20 < figures["peak_mb"] < 2000  # of a process with ONNX Runtime, and not of this one, which has torch


def test_what_a_run_of_the_client_costs() -> None:
    costs = startup.measure([BIN / "gomin-client"], {"version": ["--version"]}, rounds=2)

    (run,) = costs.values()
    assert len(run) == 2
    assert all(taken.cpu_s > 0 for taken in run)
    compared = {name: [startup.Cost(2, cpu), startup.Cost(4, cpu * 3)] for name, cpu in (("a", 1.0), ("b", 2.0))}
    assert startup.table(compared, 2).splitlines()[2:] == ["| a | 3.00 | 2.00 | 1.00 |", "| b | 3.00 | 4.00 | 2.00 |"]
    with pytest.raises(SystemExit, match=r"false failed with 1$"):
        startup.cost(["false"])


def test_latency(repository: Path, server: RunningServer) -> None:
    with connect(f"local:{repository}") as local, connect(server.grpc) as remote:
        transports = {"in-process": local, "gRPC": remote}
        table = latency.windows(transports, count=2)
        streams = latency.first_sounds(transports, count=2)
        asked = latency.questions({"gRPC": remote}, count=2)

    assert len(table) == 2 + 2 * len(latency.FRAMES)
    within, through = (line.strip("| ").split(" | ") for line in table[2:4])
    assert within[0] == "64 frames, in-process"
    assert within[4:8] == ["–"] * 4  # counted by servers only
    assert within[8] == within[1]
    client, network, queue, copies, model = map(float, through[4:])
    assert min(copies, model) > 0
    assert queue >= 0
    # two requests, of which medians are means: so the parts are the whole
    assert client + network + queue + copies + model == pytest.approx(float(through[1]), abs=0.03)
    for line in streams[2:]:
        assert all(float(cell) > 0 for cell in line.strip("| ").split(" | ")[1:])
    assert (len(streams), len(asked)) == (4, 3)
    seconds = np.array([0.1] * 9 + [0.7])
    expected = "| A | 100.00 | 430.00 | 1 of 10 | 1.00 | – | 3.00 |"
    assert latency.row("A", seconds, (0.001, np.nan, 0.003)) == expected


def test_latency_of_chains(repository: Path, server: RunningServer) -> None:
    with connect(f"local:{repository}") as local, connect(server.grpc) as remote:
        pids = machine.processes(server)
        *_, within, through = latency.chains({"in-process": local, "gRPC": remote}, pids, rounds=1)

    cells = within.strip("| ").split(" | ")
    assert (cells[0], cells[3], cells[4]) == ("in-process", "1.000", "–")
    served = through.strip("| ").split(" | ")
    chain, queue, copies, denoiser = map(float, served[4:8])
    assert min(copies, denoiser) > 0
    assert queue >= 0
    # the parts are the whole; the server's clock may stop after the client's, and leave nothing for the chain
    assert chain + queue + copies + denoiser == pytest.approx(float(served[1]) / latency.STEPS, abs=0.03)
    assert float(cells[8]) > 0  # CPU time


def test_ratios_are_of_the_same_round() -> None:
    measured = Measured([1.0, 4.0, 2.0], [2.0, 7.0, 4.0], [2.0, 0.5, 1.0], 100.0).to_dict()

    assert (measured["seconds"], measured["seconds_range"]) == (2.0, [1.0, 4.0])
    assert (measured["times_as_fast"], measured["times_as_fast_range"]) == (1.0, [0.5, 2.0])
    assert measured["cpu_seconds"] == 4.0


def test_the_report(comparison: dict[str, object], tmp_path: Path) -> None:
    described = {
        "processor": "A",
        "model": "B",
        "vector extensions": ["avx2"],
        "threads": 2,
        "sgemm_gflops": {"ONNX Runtime": 100.0},
    }
    (tmp_path / "undrawn").mkdir()
    results: dict[str, Any] = {
        "machine": described,
        "comparisons": [comparison, {**comparison, "title": "Not drawn", "in_chart": False}],
    }

    table = report.table(results)
    (tmp_path / "results.png").write_text("of another run")
    written = report.write({**results, "quick": True, "server_peak_mb": 9.0}, tmp_path)
    undrawn = report.write({**results, "comparisons": results["comparisons"][1:]}, tmp_path / "undrawn")

    assert table.count("| gomin-triton, gRPC |") == 2
    assert "| ONNX Runtime | " in table
    assert "(2 rounds)" in table
    assert "× ONNX Runtime" in table
    assert report._cpu("gomin-triton, gRPC", 1.0) == "–"  # most of it is the server's
    assert report.QUICK not in table
    assert "server's processes" not in table  # no server was measured
    assert [file.name for file in written] == ["results.json", "results.md", "results.png"]
    assert json.loads(written[0].read_text())["quick"]
    assert report.QUICK in written[1].read_text()
    assert "the peaks of the server's processes add up to 9 MB" in written[1].read_text()
    assert written[2].read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in undrawn] == ["results.json", "results.md"]


def test_a_server_is_compared_with_what_runs_in_process(comparison: dict[str, object]) -> None:
    (line,) = report._served(comparison["contenders"])[1:]  # type: ignore[arg-type]
    assert line.startswith("Through gRPC: ")

    seconds = {
        "we, --target any, in-process": [9.0, 9.0],
        "we, --target cpu, in-process": [1.0, 2.0],
        "we, --target cpu, HTTP": [2.0, 8.0],
    }
    made = {name: {"seconds_of_rounds": rounds} for name, rounds in seconds.items()}
    assert report._served(made)[1:] == [
        "Through HTTP (--target cpu): 3.000 times the seconds in-process (2.000 – 4.000)."
    ]
    assert report._served({"PyTorch": {"seconds_of_rounds": [1.0]}}) == []


def test_the_first_of_each_core_comes_first(tmp_path: Path) -> None:
    """Of two cores with two threads each: 0 and 2 are one core's, 1 and 3 the other's; 5 says nothing of itself."""
    for cpu in range(4):
        siblings = tmp_path / f"cpu{cpu}/topology/thread_siblings_list"
        siblings.parent.mkdir(parents=True)
        siblings.write_text(f"{cpu % 2},{cpu % 2 + 2}\n")

    assert machine.cores(2, {0, 1, 2, 3}, tmp_path) == {0, 1}
    assert machine.cores(2, {0, 2, 3}, tmp_path) == {0, 3}
    assert machine.cores(2, {0, 2, 5}, tmp_path) == {0, 5}
    assert machine.cores(3, {0, 2}, tmp_path) == {0, 2}
    assert machine.cores(99) == os.sched_getaffinity(0)


def peaks_by_parent(root: int) -> dict[int, float]:
    """Process id → peak memory in MB of a process and all its descendants, found through every process's parent."""
    parents, peaks = {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):  # it has ended
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            pid = int(status.parent.name)
            parents[pid] = int(fields["PPid"])
            peaks[pid] = int(fields.get("VmHWM", "0 kB").split()[0]) * 1024 / 1e6
    family = {root}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    return {pid: peaks[pid] for pid in family}


def test_the_peak_of_a_server(server: RunningServer) -> None:
    """The launcher, the native server and the processes of its Python models, each with its own peak."""
    before = peaks_by_parent(server.process.pid)
    measured = machine.peak_of_server(server)
    after = peaks_by_parent(server.process.pid)

    assert {server.process.pid, server.tritonserver} < before.keys()
    assert before.keys() == after.keys()
    rounding = 1e-6  # the sums are made in different orders
    assert sum(before.values()) - rounding <= measured <= sum(after.values()) + rounding


def test_operations_of_a_denoiser_are_counted() -> None:
    assert Models(Path(), quick=True).gflop(DENOISER_MODEL, 24) > 0


def test_operations_are_counted() -> None:
    """184 GFLOP for a second, counted by hand: 2·(taps of 6 convolutions)·C²·T for each stage, and the rest."""
    channels, samples = [768, 384, 192, 96, 48, 24], [4, 16, 32, 64, 128, 256]
    blocks = sum(2 * 6 * (3 + 7 + 11) * c * c * s for c, s in zip(channels, samples, strict=True)) * 94 / 1e9

    counted = Models(Path(), quick=False).gflop(GAN_MODEL, 94)

    assert 1.05 * blocks < counted < 1.15 * blocks
