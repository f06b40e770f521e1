"""The parity gate: an exported model must compute what the PyTorch network computes, or it is not placed anywhere.

Checked in the order in which a failure explains itself: names, types, shapes, then values, over several batch sizes and
lengths, with mels as real ones are (silence, 0 … 1.2) and random ones.

The yardstick is the network in float64. In float32 PyTorch is itself off by its own rounding, which grows with the
gains of a checkpoint: an export may be off by `ATOL`, or by `OWN_ERRORS` times what PyTorch's float32 is off, whichever
is more.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from gomin_client import contract
from gomin_export.errors import ParityError
from gomin_export.networks.diffusion import DiffusionWrapper
from gomin_export.networks.gan import GomiGAN

ATOL = 1e-5  # on waveforms of full scale ±1, and on predicted noise of unit variance
OWN_ERRORS = 4

Inputs = dict[str, NDArray[np.float32]]
Reference = Callable[[Inputs, torch.dtype], NDArray[np.floating[Any]]]

# (batch, frames): one frame, a prime, shorter and longer than the traced length
_GRID = ((1, 1), (2, 7), (1, 12), (3, 13))


@dataclass(frozen=True)
class Case:
    """One comparison with the network in float64.

    Attributes:
        name: what was fed.
        max_abs_error: of the exported model.
        torch_error: of the network in float32.
        tolerance: what the exported model may be off.
    """

    name: str
    max_abs_error: float
    torch_error: float
    tolerance: float


def check_gan(network: GomiGAN, model: Path, atol: float = ATOL) -> list[Case]:
    """Compare an exported FiLM-GAN with its network.

    Raises:
        ParityError: a name, type or shape differs, or a sample by more than the tolerance.
    """
    networks = {torch.float32: network, torch.float64: copy.deepcopy(network).double()}

    def reference(inputs: Inputs, dtype: torch.dtype) -> NDArray[np.floating[Any]]:
        with torch.no_grad():
            return networks[dtype](torch.from_numpy(inputs[contract.MEL]).to(dtype)).numpy()  # type: ignore[no-any-return]

    rng = np.random.default_rng(0)
    cases = {}
    for batch, frames, name, mel in _mels(rng, network.n_mels):
        cases[f"batch {batch}, {frames} frames, {name}"] = {contract.MEL: mel}
    expected_inputs = {contract.MEL: [None, network.n_mels, None]}
    return _compare(model, expected_inputs, contract.AUDIO, cases, reference, atol)


def check_denoiser(network: DiffusionWrapper, model: Path, atol: float = ATOL) -> list[Case]:
    """Compare an exported denoiser step with its network, with different timesteps in a batch, fractional ones too.

    Raises:
        ParityError: a name, type or shape differs, or a sample by more than the tolerance.
    """
    networks = {torch.float32: network.model, torch.float64: copy.deepcopy(network.model).double()}

    def reference(inputs: Inputs, dtype: torch.dtype) -> NDArray[np.floating[Any]]:
        signal, timestep, mel = (
            torch.from_numpy(inputs[name]).to(dtype) for name in (contract.SIGNAL, contract.TIMESTEP, contract.MEL)
        )
        with torch.no_grad():
            return networks[dtype](signal, timestep[:, 0], mel).numpy()  # type: ignore[no-any-return]

    rng = np.random.default_rng(0)
    last = network.model.num_diffusion_steps - 1
    timesteps = np.array([0, last, last / 2 + 0.25], dtype=np.float32).clip(0, last)
    cases = {}
    for batch, frames, name, mel in _mels(rng, network.n_mels):
        for rotation in range(len(timesteps)):
            timestep = np.roll(timesteps, rotation)[:batch, np.newaxis]
            cases[f"batch {batch}, {frames} frames, {name}, timesteps {timestep.ravel().tolist()}"] = {
                contract.SIGNAL: rng.standard_normal((batch, 1, network.hop_length * frames)).astype(np.float32),
                contract.TIMESTEP: timestep,
                contract.MEL: mel,
            }
    expected_inputs = {
        contract.SIGNAL: [None, 1, None],
        contract.TIMESTEP: [None, 1],
        contract.MEL: [None, network.n_mels, None],
    }
    return _compare(model, expected_inputs, contract.NOISE, cases, reference, atol)


def _mels(rng: np.random.Generator, n_mels: int) -> Iterator[tuple[int, int, str, NDArray[np.float32]]]:
    """Batch, frames, name and (batch, n_mels, frames) mel, over the grid."""
    for batch, frames in _GRID:
        shape = (batch, n_mels, frames)
        yield batch, frames, "silence", np.zeros(shape, np.float32)
        yield batch, frames, "mel values in 0 … 1.2", rng.uniform(0, 1.2, shape).astype(np.float32)
        yield batch, frames, "normal values", rng.standard_normal(shape).astype(np.float32)


def _compare(
    path: Path,
    expected_inputs: Mapping[str, list[int | None]],
    output: str,
    cases: Mapping[str, Inputs],
    reference: Reference,
    atol: float,
) -> list[Case]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    _check_signature(path, session, expected_inputs, output)
    results = []
    for name, inputs in cases.items():
        in_float32 = reference(inputs, torch.float32)
        exact = reference(inputs, torch.float64)
        (actual,) = session.run([output], inputs)
        if actual.dtype != in_float32.dtype or actual.shape != in_float32.shape:
            raise ParityError(
                f"{path.name}: for {name}, {output} is {actual.dtype} {actual.shape}; "
                f"PyTorch gives {in_float32.dtype} {in_float32.shape}"
            )
        torch_error = float(np.abs(in_float32 - exact).max())
        error = float(np.abs(actual - exact).max())
        results.append(Case(name, error, torch_error, max(atol, OWN_ERRORS * torch_error)))
    # NaN compares as neither greater nor smaller, so ask for what is right
    failed = [case for case in results if not case.max_abs_error <= case.tolerance]
    if failed:
        worst = max(failed, key=lambda case: np.nan_to_num(case.max_abs_error / case.tolerance, nan=np.inf))
        raise ParityError(
            f"{path.name} differs from PyTorch in {len(failed)} of {len(results)} cases; the worst is {worst.name}: "
            f"{output} is off by {worst.max_abs_error:.2e}, more than {worst.tolerance:.1e}. "
            "Nothing was placed in the repository"
        )
    return results


def _check_signature(
    path: Path, session: onnxruntime.InferenceSession, expected_inputs: Mapping[str, list[int | None]], output: str
) -> None:
    """Names, types and which axes are fixed; a dynamic axis (None) must have a name, not a size."""
    expected = {**expected_inputs, output: [None, 1, None]}
    tensors = {tensor.name: tensor for tensor in (*session.get_inputs(), *session.get_outputs())}
    if set(tensors) != set(expected):
        raise ParityError(f"{path.name} has the tensors {sorted(tensors)}; expected {sorted(expected)}")
    for name, shape in expected.items():
        actual = [size if isinstance(size, int) else None for size in tensors[name].shape]
        if tensors[name].type != "tensor(float)" or actual != shape:
            raise ParityError(
                f"{path.name}: {name} is {tensors[name].type} {tensors[name].shape}; "
                f"expected tensor(float) with fixed sizes {shape}"
            )
