"""Many chains side by side in common denoiser calls, and the chain that a model's config.pbtxt describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Array, Denoiser, NoiseSource, Sampler, predicted_signal
from .noise import NoiseField
from .settings import PARAMETER_PREFIX, SamplerSettings
from .tiling import TILE_FRAMES, Tiling


@dataclass(frozen=True, eq=False)
class SamplingJob:
    """The chain of one request.

    Attributes:
        mel: (B, M, T) float32.
        noise: of B items, hop_length·T samples each.
        sampler: the sampler.
        is_cancelled: whether the requester has stopped waiting.
        on_step: called after each step with its number, from 1, and the signal (B, 1, N) that the step predicts for the
            end of the chain, after the last step with the result; None if nobody wants it.
    """

    mel: Array
    noise: NoiseSource
    sampler: Sampler
    is_cancelled: Callable[[], bool] = lambda: False
    on_step: Callable[[int, Array], None] | None = None


def sample_jobs(denoise: Denoiser, jobs: Sequence[SamplingJob], tiling: Tiling) -> list[Array | None]:
    """Run many chains side by side; tiles of one length share denoiser calls.

    Samplers, steps, seeds and lengths may differ: the denoiser takes a timestep for each item. The result of a job does
    not depend on the others, except for the denoiser's rounding.

    Args:
        denoise: see `Denoiser`; never called with more than `tiling` allows.
        jobs: the chains.
        tiling: how much a call may hold.

    Returns:
        (B, 1, N) signal of each job; None for a job that was cancelled, which is checked before every call.
    """
    results: list[Array | None] = [None] * len(jobs)
    chains = {index: job.sampler.chain(job.noise) for index, job in enumerate(jobs)}
    asked = {index: next(chain) for index, chain in chains.items()}
    step = 0
    while asked:
        step += 1
        predicted = _predict(denoise, {index: jobs[index] for index in asked}, asked, tiling)
        before, asked = asked, {}
        for index, noise in predicted.items():
            job = jobs[index]
            try:
                asked[index] = chains[index].send(noise)
            except StopIteration as end:
                results[index] = end.value
                if job.on_step is not None:
                    job.on_step(step, end.value)
                continue
            if job.on_step is not None:
                job.on_step(step, predicted_signal(before[index][0], noise, job.sampler.alphas_cumprod[step - 1]))
    return results


def _predict(
    denoise: Denoiser, jobs: Mapping[int, SamplingJob], asked: Mapping[int, tuple[Array, float]], tiling: Tiling
) -> dict[int, Array]:
    """The denoiser's prediction for each job's signal and timestep; jobs that were cancelled are left out."""
    predicted = {index: np.empty_like(signal) for index, (signal, _) in asked.items()}
    by_length: dict[int, list[tuple[int, int, int, int, int]]] = {}  # frames -> (job, item, first, begin, end)
    for index, job in jobs.items():
        items, _, frames = job.mel.shape
        for tile in tiling.tiles(frames):
            of_length = by_length.setdefault(min(frames, tiling.tile_frames), [])
            of_length.extend((index, item, *tile) for item in range(items))
    hop = tiling.hop_length
    for frames, tiles in by_length.items():
        count = tiling.items(frames)
        for start in range(0, len(tiles), count):
            for index in {tile[0] for tile in tiles[start : start + count]} & predicted.keys():
                if jobs[index].is_cancelled():
                    del predicted[index]
            call = [tile for tile in tiles[start : start + count] if tile[0] in predicted]
            if not call:
                continue
            noise = denoise(
                np.stack([asked[index][0][item, :, hop * f : hop * (f + frames)] for index, item, f, _, _ in call]),
                np.array([asked[index][1] for index, *_ in call], dtype=np.float32),
                np.stack([jobs[index].mel[item, :, f : f + frames] for index, item, f, _, _ in call]),
            )
            for row, (index, item, first, begin, end) in zip(noise, call, strict=True):
                predicted[index][item, :, hop * begin : hop * end] = row[:, hop * (begin - first) : hop * (end - first)]
    return predicted


def side_by_side(frames: Mapping[int, int], max_frames: int | None) -> list[list[int]]:
    """Requests, in order, in groups that together have no more frames than one request may have.

    Args:
        frames: request → its number of frames, of all its items together.
        max_frames: the bound; None if there is none.
    """
    groups: list[list[int]] = []
    total = 0
    for request, count in frames.items():
        total += count
        if not groups or (max_frames is not None and total > max_frames):
            groups.append([])
            total = count
        groups[-1].append(request)
    return groups


@dataclass(frozen=True)
class DiffusionModel:
    """The chains of a diffusion model, as its config.pbtxt describes them.

    Attributes:
        num_diffusion_steps: timesteps that the denoiser was trained with.
        tiling: how the denoiser is called.
        defaults: the settings of requests that do not choose their own.
        max_frames: largest number of mel frames in one request, of all its items together; None if there is no bound.

    Raises:
        ValueError: defaults that are not valid.
    """

    num_diffusion_steps: int
    tiling: Tiling
    defaults: SamplerSettings
    max_frames: int | None = None

    def __post_init__(self) -> None:
        self.defaults.make(self.num_diffusion_steps)

    @classmethod
    def from_config(cls, parameters: Mapping[str, str], max_batch_size: int) -> DiffusionModel:
        """Read from config parameters.

        Raises:
            ValueError: one is missing, malformed or out of range.
        """

        def number(name: str, default: int | None = None) -> int:
            text = parameters.get(PARAMETER_PREFIX + name, default)
            try:
                return int(text)  # type: ignore[arg-type]
            except (TypeError, ValueError):
                raise ValueError(f"config parameter {PARAMETER_PREFIX}{name} is {text!r}: not a whole number") from None

        tiling = Tiling(
            number("hop_length"), number("halo_frames"), number("tile_frames", TILE_FRAMES), max(1, max_batch_size)
        )
        max_frames = number("max_frames") if PARAMETER_PREFIX + "max_frames" in parameters else None
        return cls(number("num_diffusion_steps"), tiling, SamplerSettings.from_config(parameters), max_frames)

    def job(
        self,
        mel: Array,
        seeds: NDArray[np.integer[Any]],
        first_samples: NDArray[np.integer[Any]] | None,
        parameters: Mapping[str, object],
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> SamplingJob:
        """A request as a job.

        Args:
            mel: (B, M, T) float32.
            seeds: (B, 1).
            first_samples: (B, 1) absolute index of each item's first sample; None for 0.
            parameters: request parameters; see `SamplerSettings`.
            is_cancelled: whether the requester has stopped waiting.

        Raises:
            ValueError: an input or a parameter is not valid, or the request is longer than `max_frames`.
        """
        sampler = SamplerSettings.from_parameters(parameters).over(self.defaults).make(self.num_diffusion_steps)
        items, _, frames = mel.shape
        if frames == 0:
            raise ValueError("mel has no frames")
        if self.max_frames is not None and items * frames > self.max_frames:
            raise ValueError(
                f"at most {self.max_frames} frames in one request, this one has {items} × {frames}: send windows of "
                f"it, or raise {PARAMETER_PREFIX}max_frames in config.pbtxt"
            )
        if not np.isfinite(mel).all():
            raise ValueError("mel contains NaN or infinite values")
        first = np.zeros(len(seeds), np.int64) if first_samples is None else first_samples[:, 0]
        noise = NoiseField(seeds[:, 0].tolist(), self.tiling.hop_length * frames, first.tolist())
        return SamplingJob(mel, noise, sampler, is_cancelled)
