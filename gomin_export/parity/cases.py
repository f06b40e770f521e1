"""The parity gate's cases: inputs, and the outputs of the PyTorch network for them.

A grid of batch sizes and lengths: one frame, odd and prime counts, shorter and longer than the traced example. The mels
are those of recordings (silence, a tone, clipped noise, values up to 1.2), and normal values, which no recording has.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gomin_client.contract import model as contract
from gomin_client.mel.features import MelConfig, from_power, mel_spectrogram
from gomin_client.sampling.settings import SamplerSettings
from gomin_export.networks.base import MelInverter
from gomin_export.networks.diffusion import DiffusionWrapper
from gomin_export.parity import windows
from gomin_export.parity.gate import Case, Expected, Inputs
from gomin_export.parity.librosa_loading import load_librosa

Grid = Sequence[tuple[int, int]]

GRID = ((1, 1), (2, 7), (3, 5), (1, 17))  # (batch, frames)
SOUNDS = SILENCE, MUSIC, CLIPPED, RANDOM, NORMAL = (
    "silence",
    "music",
    "clipped noise",
    "uniform in 0 … 1.2",
    "normal",
)
WAVES = (SILENCE, MUSIC, CLIPPED, LOUD := "noise of 20 times full scale", FAINT := "noise at -110 dB")
CHAIN_FRAMES = 3  # the whole chain takes dozens of denoiser steps
_SEED = 20

NamedInputs = tuple[str, Inputs]
Compute = Callable[[Inputs, torch.dtype], NDArray[np.floating[Any]]]


def vocoder_cases(network: MelInverter, grid: Grid = GRID, sounds: Sequence[str] = SOUNDS) -> list[Case]:
    """Cases of a network that makes the waveform in one pass: mel (B, M, T) -> audio (B, 1, N)."""
    networks = _in_both_precisions(network)

    def compute(inputs: Inputs, dtype: torch.dtype) -> NDArray[np.floating[Any]]:
        return networks[dtype](torch.from_numpy(inputs[contract.MEL]).to(dtype)).numpy()  # type: ignore[no-any-return]

    rng = np.random.default_rng(_SEED)
    mels = _mels(rng, network.mel_config, grid, sounds)
    return _cases([(name, {contract.MEL: mel}) for name, mel in mels], compute)


def denoiser_cases(network: DiffusionWrapper, grid: Grid = GRID, sounds: Sequence[str] = SOUNDS) -> list[Case]:
    """Cases of one denoiser step: first, last and fractional timesteps, different ones in a batch."""
    networks = _in_both_precisions(network.model)

    def compute(inputs: Inputs, dtype: torch.dtype) -> NDArray[np.floating[Any]]:
        signal, timestep, mel = (
            torch.from_numpy(inputs[name]).to(dtype) for name in (contract.SIGNAL, contract.TIMESTEP, contract.MEL)
        )
        return networks[dtype](signal, timestep[:, 0], mel).numpy()  # type: ignore[no-any-return]

    rng = np.random.default_rng(_SEED)
    last = network.model.num_diffusion_steps - 1
    timesteps = np.array([0, last, last / 2 + 0.25], dtype=np.float32).clip(0, last)
    named: list[NamedInputs] = []
    for index, (name, mel) in enumerate(_mels(rng, network.mel_config, grid, sounds)):
        batch, _, frames = mel.shape
        timestep = np.roll(timesteps, index)[:batch, np.newaxis]
        words = ", ".join(f"{value:g}" for value in timestep[:, 0])
        inputs = {
            contract.SIGNAL: rng.standard_normal((batch, 1, network.hop_length * frames)).astype(np.float32),
            contract.TIMESTEP: timestep,
            contract.MEL: mel,
        }
        named.append((f"{name}, t = {words}", inputs))
    return _cases(named, compute)


def chain_cases(network: DiffusionWrapper, settings: SamplerSettings) -> list[Case]:
    """The case of a whole sampling chain: two items with different noise."""
    networks = _in_both_precisions(network)
    sampler = settings.make(network.model.num_diffusion_steps)

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
    name = f"2 × {CHAIN_FRAMES} frames, music and clipped noise, {settings.sampler}, {len(sampler.timesteps)} steps"
    return _cases([(name, inputs)], compute)


def front_end_cases(config: MelConfig) -> list[Case]:
    """Cases of the mel front end: audio (B, 1, N) -> mel (B, n_mels, T), as librosa computes it."""
    hop, n_fft = config.hop_length, config.n_fft
    lengths = ((1, 1), (2, max(1, hop - 1)), (3, hop), (1, n_fft + 1), (2, 7 * hop + 3), (1, 17 * hop))
    rng = np.random.default_rng(_SEED)
    cases = []
    for batch, samples in lengths:
        for sound in WAVES:
            audio = np.stack([_wave(rng, config, samples, sound) for _ in range(batch)])
            inputs = {contract.AUDIO: audio[:, np.newaxis]}
            name = f"{batch} × {_counted(samples, 'sample')}, {sound}"
            cases.append(Case(name, inputs, partial(_expected_mels, inputs, config)))
    return cases


def _expected_mels(inputs: Inputs, config: MelConfig) -> Expected:
    return Expected(np.stack([_librosa_mel(wave, config) for wave in inputs[contract.AUDIO][:, 0]]), 0.0)


def _librosa_mel(wave: NDArray[np.float32], config: MelConfig) -> NDArray[np.float64]:
    """(samples,) -> (n_mels, frames) on GOMIN's scale, with the window, the STFT and the bands of librosa.

    The client and the exported front end share a window and bands, so an error in them would not show between the two.
    """
    librosa = load_librosa()  # only where a front end is exported or verified: it takes seconds
    window = librosa.filters.get_window("hann", config.win_length)
    with warnings.catch_warnings(action="ignore"):  # about short recordings, and bands so narrow that no bin is in them
        spectrum = librosa.stft(
            wave.astype(np.float64),
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            win_length=config.win_length,
            window=window,
            pad_mode="constant",
        )
        filters = librosa.filters.mel(
            sr=config.sample_rate, n_fft=config.n_fft, n_mels=config.n_mels, htk=False, norm="slaney", dtype=np.float64
        )
    return from_power(filters @ (np.abs(spectrum) ** 2 / np.sum(window**2)))


def reconstruction_cases(network: MelInverter) -> list[Case]:
    """Cases from audio to audio in one pass: audio (B, 1, N) -> reconstruction (B, 1, hop_length·T)."""
    networks = _in_both_precisions(network)

    def compute(inputs: Inputs, dtype: torch.dtype) -> NDArray[np.floating[Any]]:
        mel = torch.from_numpy(_mels_of(inputs[contract.AUDIO], network.mel_config)).to(dtype)
        return networks[dtype](mel).numpy()  # type: ignore[no-any-return]

    return _cases(_recordings(network.mel_config), compute)


def chain_reconstruction_cases(network: DiffusionWrapper, settings: SamplerSettings) -> list[Case]:
    """The case from audio to audio by a whole sampling chain: two items with different noise."""
    networks = _in_both_precisions(network)
    sampler = settings.make(network.model.num_diffusion_steps)
    config = network.mel_config

    def compute(inputs: Inputs, dtype: torch.dtype) -> NDArray[np.floating[Any]]:
        mel = torch.from_numpy(_mels_of(inputs[contract.AUDIO], config)).to(dtype)
        audio = networks[dtype](mel, seed=inputs[contract.SEED][:, 0].tolist(), sampler=sampler)
        return audio.numpy()  # type: ignore[no-any-return]

    rng = np.random.default_rng(_SEED)
    samples = max(1, config.hop_length - 1)  # one frame: what the steps compute is tested with the chain alone
    audio = np.stack([_wave(rng, config, samples, sound) for sound in (MUSIC, CLIPPED)])
    inputs: Inputs = {contract.AUDIO: audio[:, np.newaxis], contract.SEED: np.array([[1], [2**40]], np.uint64)}
    name = f"2 × {samples} samples, music and clipped noise, {settings.sampler}, {len(sampler.timesteps)} steps"
    return _cases([(name, inputs)], compute)


def windowed(cases: Callable[..., list[Case]], network: MelInverter) -> list[Case]:
    """The case that is sent in windows: a mel of three windows. See `parity.windows`.

    Args:
        cases: `vocoder_cases` or `denoiser_cases`, or a function with the same arguments.
        network: the reference.
    """
    halo = network.halo_frames
    (case,) = cases(network, ((1, windows.frames(halo)),), (RANDOM,))
    return [replace(case, name=f"{case.name}, in windows of {windows.size(halo)}, halo {halo}")]


def to_record(cases: list[Case]) -> list[Case]:
    """The cases to store beside the model: a few that differ in batch size, length and content."""
    if len(cases) < len(GRID) * len(SOUNDS):
        return cases
    return [cases[index] for index in (0, 6, 7, -2, -1)]  # 1 × 1 silence, 2 × 7 sounds, 1 × 17 random


def _cases(named: Sequence[NamedInputs], compute: Compute) -> list[Case]:
    """Cases with the network's output in float64, and the error of its output in float32."""
    return [Case(name, inputs, partial(_expected, inputs, compute)) for name, inputs in named]


def _expected(inputs: Inputs, compute: Compute) -> Expected:
    with torch.no_grad():
        exact = compute(inputs, torch.float64).astype(np.float64)
        return Expected(exact, float(np.abs(compute(inputs, torch.float32) - exact).max()))


def _in_both_precisions(network: Any) -> dict[torch.dtype, Any]:
    return {torch.float32: network, torch.float64: copy.deepcopy(network).double()}


def _mels(
    rng: np.random.Generator, config: MelConfig, grid: Grid, sounds: Sequence[str]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Name and mel (batch, n_mels, frames) for each point of the grid and each sound."""
    for batch, frames in grid:
        for sound in sounds:
            mels = [_mel(rng, config, frames, sound) for _ in range(batch)]
            yield f"{batch} × {_counted(frames, 'frame')}, {sound}", np.stack(mels)


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


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
    return mel_spectrogram(_wave(rng, config, frames * config.hop_length, MUSIC), config)[:, :frames]


def _clipped(rng: np.random.Generator, config: MelConfig, frames: int) -> NDArray[np.float32]:
    """Mel (n_mels, frames) of noise driven far into clipping: the loudest that a recording can be."""
    return mel_spectrogram(_wave(rng, config, frames * config.hop_length, CLIPPED), config)[:, :frames]


def _recordings(config: MelConfig) -> list[NamedInputs]:
    """Audio (B, 1, N) of several lengths, of sounds that a recording can have.

    A few: the front end and the vocoder have been tested when an ensemble of them is.
    """
    rng = np.random.default_rng(_SEED)
    named: list[NamedInputs] = []
    for batch, samples, sounds in (
        (1, 1, [CLIPPED]),
        (3, 2 * config.hop_length - 1, [MUSIC, SILENCE, FAINT]),
        (1, 8 * config.hop_length, [MUSIC]),
    ):
        audio = np.stack([_wave(rng, config, samples, sound) for sound in sounds])
        named.append(
            (f"{batch} × {_counted(samples, 'sample')}, {', '.join(sounds)}", {contract.AUDIO: audio[:, np.newaxis]})
        )
    return named


def _mels_of(audio: NDArray[Any], config: MelConfig) -> NDArray[np.float32]:
    """(B, 1, N) -> (B, n_mels, T), by the client."""
    return np.stack([mel_spectrogram(wave, config) for wave in audio[:, 0]])


def _wave(rng: np.random.Generator, config: MelConfig, samples: int, sound: str) -> NDArray[np.float32]:
    """(samples,) of one of `WAVES`."""
    if sound == MUSIC:
        time = np.arange(samples) / config.sample_rate
        pitch = rng.uniform(80, 400)
        tone = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12))
        return np.asarray(0.3 * tone * np.exp(-8 * time) + 1e-4 * rng.standard_normal(samples), np.float32)
    gains = {SILENCE: 0.0, CLIPPED: 20.0, LOUD: 20.0, FAINT: 10 ** (-110 / 20)}
    wave = gains[sound] * rng.standard_normal(samples)
    return (np.clip(wave, -1, 1) if sound == CLIPPED else wave).astype(np.float32)
