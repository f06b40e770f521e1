"""One contender in a separate process, undisturbed by the threads, caches and memory of the others.

`python -m benchmarks.worker KIND PLACE MODEL QUICK` reads a number of frames from each line of standard input and
prints the seconds and the CPU seconds that one call took; at an empty line it prints the peak memory of the process in
MB and ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from benchmarks import THREADS
from gomin_client.contract.model import DENOISER_MODEL, DIFFUSION_MODEL, OUTPUTS

Call = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Cost:
    """Of one run or call.

    Attributes:
        elapsed_s: seconds from its start to its end.
        cpu_s: seconds that its process computed, in all threads.
    """

    elapsed_s: float
    cpu_s: float


class Process:
    """A process that answers such lines."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Args: command: the program and its arguments; environment: variables to set."""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
        )

    def call(self, frames: int) -> Cost:
        """Run a contender once."""
        elapsed, cpu = self.ask(str(frames)).split()
        return Cost(float(elapsed), float(cpu))

    def close(self) -> float:
        """End the process; returns its peak memory in MB."""
        peak = float(self.ask(""))
        self._process.wait()
        return peak

    def ask(self, line: str) -> str:
        """The answer to a line."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        return self.next_line()

    def next_line(self) -> str:
        """The next line that it prints.

        Raises:
            SystemExit: it has ended.
        """
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"a contender ended: {self._process.args!r}")
        return answer


class Worker(Process):
    """A contender of `make bench`."""

    def __init__(self, kind: str, place: str, model: str, quick: bool) -> None:
        """Args: kind: one of `_OPEN`; place: file, repository or URL that it opens; model: the network."""
        super().__init__([sys.executable, "-m", "benchmarks.worker", kind, place, model, str(int(quick))])


def _eager(place: str, model: str, quick: bool) -> Call:
    import torch

    from benchmarks.models import Models

    torch.set_grad_enabled(False)
    torch.set_num_threads(THREADS)
    network = Models(Path(place), quick).network(model)
    return lambda inputs: network(**inputs)


def _compiled(place: str, model: str, quick: bool) -> Call:
    import torch

    network = _eager(place, model, quick)
    torch._inductor.config.freezing = True
    return torch.compile(network, dynamic=False)


def _onnxruntime(place: str, _model: str, _quick: bool) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(place, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


def _openvino(place: str, _model: str, _quick: bool) -> Call:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(place, "CPU", settings)
    return lambda inputs: compiled(inputs)


def _transport(place: str, model: str, _quick: bool) -> Call:
    """Our model, in-process or through a server, as the client calls it."""
    from gomin_client.transports.registry import connect

    transport = connect(place)
    output = OUTPUTS[model.removeprefix("gomin_")]
    return lambda inputs: transport.infer(model, 1, inputs)[output]


_OPEN = {
    "eager": _eager,
    "compile": _compiled,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "transport": _transport,
}


def main() -> None:
    """Answer until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles it, and closes standard input
    kind, place, model, quick = sys.argv[1:]
    as_tensors = kind in ("eager", "compile")
    answer(_OPEN[kind](place, model, quick == "1"), lambda frames: _inputs(model, frames, as_tensors))


def answer(
    call: Call,
    inputs_of: Callable[[int], dict[str, Any]],
    run_file: Callable[[str, str], None] | None = None,
    answers: TextIO = sys.stdout,
) -> None:
    """Answer the lines of standard input, until an empty one or the end.

    Args:
        call: runs a contender.
        inputs_of: makes the inputs of a number of frames.
        run_file: runs the arrays of a file and writes the output into another, for lines with two names.
        answers: where the answers go.
    """
    inputs = {}
    for line in sys.stdin:
        if not line.strip():
            print(peak_mb(), file=answers, flush=True)
            break
        if run_file is not None and " " in line:
            run_file(*line.split())
            print("done", file=answers, flush=True)
            continue
        frames = int(line)
        if frames not in inputs:
            inputs[frames] = inputs_of(frames)
        computed, started = time.process_time(), time.perf_counter()
        call(inputs[frames])
        print(time.perf_counter() - started, time.process_time() - computed, file=answers, flush=True)


def peak_mb(pid: int | str = "self") -> float:
    """Peak memory of one process; getrusage would include the memory of the process that started it."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def _inputs(model: str, frames: int, as_tensors: bool) -> dict[str, Any]:
    """Inputs of one call. Imports torch only for contenders that use it, since its memory would count."""
    import numpy as np

    random = np.random.default_rng(frames)
    arrays: dict[str, Any] = {"mel": random.random((1, 128, frames), np.float32)}
    if model == DIFFUSION_MODEL:
        arrays["seed"] = np.array([[frames]], np.uint64)
    elif model == DENOISER_MODEL:
        arrays["signal"] = random.standard_normal((1, 1, 256 * frames), np.float32)
        arrays["timestep"] = np.array([[17.0]], np.float32)
    if not as_tensors:
        return arrays
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}


if __name__ == "__main__":
    main()
