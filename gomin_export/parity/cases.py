"""What the parity gate feeds a model, and what the PyTorch network answers.

A grid of batches and lengths: one frame, odd and prime counts, shorter and longer than the traced one; with mels as
recordings give them (silence, clipped noise, values up to 1.2) and normal values, which no recording gives.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gomin_client.contract import model as contract
from gomin_client.mel.features import MelConfig, mel_spectrogram
from gomin_client.sampling.settings import SamplerSettings
from gomin_export.networks import DiffusionWrapper, GomiGAN
from gomin_export.parity import windows
from gomin_export.parity.gate import Expectation, Inputs

GRID = ((1, 1), (2, 7), (3, 5), (1, 17))  # (batch, frames)
SOUNDS = SILENCE, MUSIC, CLIPPED, RANDOM, NORMAL = (
    "silence",
    "music",
    "clipped noise",
    "uniform in 0 … 1.2",
    "normal",
)
CHAIN_FRAMES = 3  # the whole chain takes dozens of denoiser steps
_SEED = 20

Probe = tuple[str, Inputs]
Grid = Sequence[tuple[int, int]]
Compute = Callable[[Inputs, torch.dtype], NDArray[np.floating[Any]]]


def expect_gan(network: GomiGAN, grid: Grid = GRID, sounds: Sequence[str] = SOUNDS) -> list[Expectation]:
    """What a FiLM-GAN must answer: mel (B, M, T) -> audio (B, 1, N)."""
    networks = _in_both_precisions(network)

    def compute(inputs: Inputs, dtype: torch.dtype) -> NDArray[np.floating[Any]]:
        return networks[dtype](torch.from_numpy(inputs[contract.MEL]).to(dtype)).numpy()  # type: ignore[no-any-return]

    rng = np.random.default_rng(_SEED)
    probes: list[Probe] = [(name, {contract.MEL: mel}) for name, mel in _mels(rng, network.mel_config, grid, sounds)]
    return _expect(probes, compute)


def expect_denoiser(network: DiffusionWrapper, grid: Grid = GRID, sounds: Sequence[str] = SOUNDS) -> list[Expectation]:
    """What a denoiser step must answer: first, last and fractional timesteps, different ones in a batch."""
    networks = _in_both_precisions(network.model)

    def compute(inputs: Inputs, dtype: torch.dtype) -> NDArray[np.floating[Any]]:
        signal, timestep, mel = (
            torch.from_numpy(inputs[name]).to(dtype) for name in (contract.SIGNAL, contract.TIMESTEP, contract.MEL)
        )
        return networks[dtype](signal, timestep[:, 0], mel).numpy()  # type: ignore[no-any-return]

    rng = np.random.default_rng(_SEED)
    last = network.model.num_diffusion_steps - 1
    timesteps = np.array([0, last, last / 2 + 0.25], dtype=np.float32).clip(0, last)
    probes: list[Probe] = []
    for index, (name, mel) in enumerate(_mels(rng, network.mel_config, grid, sounds)):
        batch, _, frames = mel.shape
        timestep = np.roll(timesteps, index)[:batch, np.newaxis]
        words = ", ".join(f"{value:g}" for value in timestep[:, 0])
        inputs = {
            contract.SIGNAL: rng.standard_normal((batch, 1, network.hop_length * frames)).astype(np.float32),
            contract.TIMESTEP: timestep,
            contract.MEL: mel,
        }
        probes.append((f"{name}, t = {words}", inputs))
    return _expect(probes, compute)


def expect_chain(network: DiffusionWrapper, chain: SamplerSettings | None = None) -> list[Expectation]:
    """What a whole diffusion chain must answer, two items with noise of their own."""
    networks = _in_both_precisions(network)
    chain = (chain or SamplerSettings()).resolved(network.model.num_diffusion_steps)
    sampler = chain.make(network.model.num_diffusion_steps)

    def compute(inputs: Inputs, dtype: torch.dtype) -> NDArray[np.floating[Any]]:
        mel = torch.from_numpy(inputs[contract.MEL]).to(dtype)
        audio = networks[dtype](mel, seed=inputs[contract.SEED][:, 0].tolist(), sampler=sampler)
        return audio.numpy()  # type: ignore[no-any-return]

    rng = np.random.default_rng(_SEED)
    mel = np.stack([_music(rng, network.mel_config, CHAIN_FRAMES), _clipped(rng, network.mel_config, CHAIN_FRAMES)])
    inputs: Inputs = {
        contract.MEL: mel,
        contract.SEED: np.array([[1], [2**40]], np.uint64),
        contract.FIRST_SAMPLE: np.zeros((2, 1), np.int64),
    }
    name = f"2 × {CHAIN_FRAMES} frames, music and clipped noise, {chain.sampler}, {len(sampler.timesteps)} steps"
    return _expect([(name, inputs)], compute)


# kind of model -> what a model of that kind must answer
EXPECTATIONS: dict[str, Callable[..., list[Expectation]]] = {
    contract.GAN: expect_gan,
    contract.DENOISER: expect_denoiser,
    contract.DIFFUSION: expect_chain,
}


def expect_windows(kind: str, network: GomiGAN | DiffusionWrapper) -> list[Expectation]:
    """What a model must answer window by window; none for a chain, whose windows are those of the denoiser."""
    if kind == contract.DIFFUSION:
        return []
    halo = network.halo_frames
    (found,) = EXPECTATIONS[kind](network, ((1, windows.frames(halo)),), (RANDOM,))
    return [replace(found, name=f"{found.name}, in windows of {windows.size(halo)}, halo {halo}")]


def to_record(expectations: list[Expectation]) -> list[Expectation]:
    """A few of them, different in batch, length and content, to be stored beside the model."""
    if len(expectations) < 20:
        return expectations
    return [expectations[index] for index in (0, 6, 7, -2, -1)]  # 1 × 1 silence, 2 × 7 sounds, 1 × 17 random


def _expect(probes: Sequence[Probe], compute: Compute) -> list[Expectation]:
    expectations = []
    with torch.no_grad():
        for name, inputs in probes:
            exact = compute(inputs, torch.float64).astype(np.float64)
            torch_error = float(np.abs(compute(inputs, torch.float32) - exact).max())
            expectations.append(Expectation(name, inputs, exact, torch_error))
    return expectations


def _in_both_precisions(network: Any) -> dict[torch.dtype, Any]:
    return {torch.float32: network, torch.float64: copy.deepcopy(network).double()}


def _mels(
    rng: np.random.Generator, config: MelConfig, grid: Grid, sounds: Sequence[str]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Name and (batch, n_mels, frames) mel, over a grid."""
    for batch, frames in grid:
        for sound in sounds:
            mels = [_mel(rng, config, frames, sound) for _ in range(batch)]
            yield f"{batch} × {frames} frames, {sound}", np.stack(mels)


def _mel(rng: np.random.Generator, config: MelConfig, frames: int, sound: str) -> NDArray[np.float32]:
    """Mel (n_mels, frames) of one of `SOUNDS`."""
    shape = (config.n_mels, frames)
    if sound == SILENCE:
        return np.zeros(shape, np.float32)
    if sound == RANDOM:
        return rng.uniform(0, 1.2, shape).astype(np.float32)
    if sound == NORMAL:
        return rng.standard_normal(shape).astype(np.float32)
    return {MUSIC: _music, CLIPPED: _clipped}[sound](rng, config, frames)


def _music(rng: np.random.Generator, config: MelConfig, frames: int) -> NDArray[np.float32]:
    """Mel (n_mels, frames) of a decaying harmonic tone over faint noise: loud bands beside silent ones."""
    time = np.arange(frames * config.hop_length) / config.sample_rate
    pitch = rng.uniform(80, 400)
    tone = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12))
    wave = 0.3 * tone * np.exp(-8 * time) + 1e-4 * rng.standard_normal(len(time))
    return mel_spectrogram(wave.astype(np.float32), config)[:, :frames]


def _clipped(rng: np.random.Generator, config: MelConfig, frames: int) -> NDArray[np.float32]:
    """Mel (n_mels, frames) of noise driven far into clipping: as loud as a recording gets."""
    wave = np.clip(20 * rng.standard_normal(frames * config.hop_length), -1, 1)
    return mel_spectrogram(wave.astype(np.float32), config)[:, :frames]
