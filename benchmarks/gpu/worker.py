"""One contender on a GPU or the CPU, in a process of its own: see `benchmarks.worker`.

`python -m benchmarks.gpu.worker TASK` with the fields of `Task` as JSON. Before the first line it prints which
execution providers ran how many operators. A line "INPUTS OUTPUT" runs the arrays of one .npz file and writes another.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.worker import Call, Process, answer
from gomin_client.contract.model import DENOISER_MODEL, ModelContract
from gomin_client.contract.signatures import SIGNATURES

Arrays = Mapping[str, NDArray[Any]]
# Operators on shapes, which ONNX Runtime keeps on the CPU on purpose; all others on a CPU would be a silent fallback
SHAPE_OPERATORS = {"Shape", "Gather", "Concat", "Slice", "Squeeze", "Unsqueeze", "Cast", "Reshape"}
_FIRST_FRAMES = 8
_CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Task:
    """What a process runs.

    Attributes:
        model: name of the model.
        path: the ONNX file, or for PyTorch the checkpoint.
        contract: config parameters of the model.
        providers: ONNX Runtime's execution providers with options, the wanted one first; empty for PyTorch.
        device: PyTorch's.
    """

    model: str
    path: str
    contract: Mapping[str, str]
    providers: list[tuple[str, dict[str, str]]]
    device: str


class GpuWorker(Process):
    """Starts such a process."""

    def __init__(self, task: Task, environment: Mapping[str, str]) -> None:
        """Waits until the model is loaded, which takes minutes if TensorRT builds an engine."""
        super().__init__([sys.executable, "-m", "benchmarks.gpu.worker", json.dumps(asdict(task))], environment)
        self.operators: dict[str, int] = json.loads(self.next_line())

    def run(self, inputs: Arrays) -> NDArray[np.float32]:
        """The model's output."""
        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder, "inputs.npz"), Path(folder, "output.npy")
            np.savez(given, **inputs)
            self.ask(f"{given} {made}")
            output: NDArray[np.float32] = np.load(made)
        return output


def placed(used: Mapping[tuple[str, str], int], wanted: str) -> dict[str, int]:
    """Execution provider → number of operators that it ran.

    Raises:
        SystemExit: the wanted provider ran none, or operators on data ran on the CPU in its place.
    """
    counts: dict[str, int] = {}
    for (provider, _), number in used.items():
        counts[provider] = counts.get(provider, 0) + number
    strays = {operator for provider, operator in used if provider == _CPU} - SHAPE_OPERATORS
    if wanted not in counts:
        raise SystemExit(f"{wanted} ran no operator; the operators ran on {', '.join(sorted(counts))}")
    if wanted != _CPU and strays:
        raise SystemExit(f"asked for {wanted}, but the CPU ran {', '.join(sorted(strays))}")
    return counts


def _onnxruntime(task: Task) -> tuple[Call, dict[str, int]]:
    import onnxruntime

    from benchmarks.gpu.requirements import load_libraries
    from gomin_export.parity.signature import operators_run

    wanted = task.providers[0][0]
    if wanted != _CPU:
        load_libraries()

    def open_session(options: Any) -> Any:
        options.enable_mem_pattern = False  # as in config.pbtxt
        session = onnxruntime.InferenceSession(task.path, options, providers=task.providers)
        if wanted not in session.get_providers():
            raise SystemExit(f"asked for {wanted}, but ONNX Runtime set up only {', '.join(session.get_providers())}")
        return session

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = open_session(options)
        session.run(None, inputs_of(task, _FIRST_FRAMES))
        counts = placed(operators_run(session), wanted)
        del session
    session = open_session(onnxruntime.SessionOptions())
    return lambda inputs: session.run(None, inputs)[0], counts


def _pytorch(task: Task) -> tuple[Call, dict[str, int]]:
    import torch

    from gomin_export.checkpoints import load_network
    from gomin_export.networks import registry
    from gomin_export.onnx.forms import DenoiserStep

    torch.set_grad_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    known = registry.DIFFUSION if task.model == DENOISER_MODEL else registry.GAN
    loaded: Any = load_network(known.network_class, task.path)
    network: Any = DenoiserStep(loaded.model) if task.model == DENOISER_MODEL else loaded
    network = network.to(task.device).eval()

    def call(inputs: Arrays) -> Any:
        tensors = {name: torch.from_numpy(array).to(task.device) for name, array in inputs.items()}
        return network(**tensors).cpu().numpy()

    return call, {}


def inputs_of(task: Task, frames: int) -> dict[str, Any]:
    """Inputs of one call."""
    described = ModelContract.from_parameters(task.model, dict(task.contract))
    random = np.random.default_rng(frames)
    arrays = {
        tensor.name: random.random([1, *map(int, filter(None, tensor.sizes(described, frames)))], np.float32)
        for tensor in SIGNATURES[described.kind].inputs
    }
    if "timestep" in arrays:
        arrays["timestep"][:] = 17.0
    return arrays


def main() -> None:
    """Answer until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles it, and closes standard input
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # ONNX Runtime prints failures of execution providers to standard output
    fields = json.loads(sys.argv[1])
    task = Task(**{**fields, "providers": [tuple(provider) for provider in fields["providers"]]})
    call, counts = (_onnxruntime if task.providers else _pytorch)(task)
    print(json.dumps(counts), file=answers, flush=True)

    def run_file(given: str, made: str) -> None:
        with np.load(given) as arrays:
            np.save(made, call(dict(arrays)))

    answer(call, lambda frames: inputs_of(task, frames), run_file, answers)


if __name__ == "__main__":
    main()
