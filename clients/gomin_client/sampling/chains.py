"""Diffusion sampling: noise schedules, the noise field, samplers, and the chain that a request asks for.

This file is the only implementation. `gomin-export` copies it, unchanged, beside the Triton model that runs the chain
on the server, so it imports numpy and the standard library alone and runs on Python 3.10.

Axes: B batch, M mel bands, T mel frames, N = hop_length·T waveform samples. ᾱ_t is what is left of the signal's power
at timestep t; the timesteps of a model are 0 … num_diffusion_steps - 1, in order of rising noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# (signal (B, 1, N), timestep (B,) float32, mel (B, M, T)) -> predicted noise (B, 1, N)
Denoiser = Callable[[Array, Array, Array], Array]

# draw number -> standard normal noise (B, 1, N); draw 0 is the start of the chain, draw k belongs to its k-th step
NoiseSource = Callable[[int], Array]

# yields the signal (B, 1, N) before each step and the timestep to ask the denoiser with, is sent the noise that the
# denoiser predicts (B, 1, N), and returns the signal after the last step
Chain = Generator[tuple[Array, float], Array, Array]

LINEAR_BETA_START = 1e-4
LINEAR_BETA_END = 0.05
COSINE_OFFSET = 0.008
MAX_BETA = 0.999
FAST_BETAS = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5)  # Kong et al. 2020, appendix C
MIN_VARIANCE = np.float32(1e-20)

DEFAULT_STEPS = {"ddim": 25, "dpm++": 20}  # or as many as the model has, if that is fewer
TILE_FRAMES = 512

PARAMETER_PREFIX = "gomin."  # of config parameters, as in contract.py, which is not at hand inside Triton

_WORDS_PER_BLOCK = 4  # Philox4x64 makes four 64-bit words from each value of its counter
_ONE = np.float32(1)


@dataclass(frozen=True)
class NoiseSchedule:
    """How much of the signal is left at each timestep of the forward process.

    Attributes:
        alphas_cumprod: (T,) float32 ᾱ_t, decreasing within (0, 1); T timesteps.
    """

    alphas_cumprod: Array

    @classmethod
    def from_betas(cls, betas: Sequence[float] | NDArray[np.floating[Any]]) -> NoiseSchedule:
        """The schedule of given betas, β_t = 1 - ᾱ_t/ᾱ_{t-1}; they are rounded to float32.

        Raises:
            ValueError: none at all, or one that is not within (0, 1).
        """
        rounded = np.asarray(betas, dtype=np.float32)
        if rounded.ndim != 1 or not len(rounded) or not ((rounded > 0) & (rounded < 1)).all():
            raise ValueError(f"betas {np.array2string(rounded, threshold=8)}: expected numbers between 0 and 1")
        # float32 factors, multiplied in float64: to the bit what torch.cumprod gave the program the models come from
        return cls(np.cumprod((_ONE - rounded).astype(np.float64)).astype(np.float32))

    @classmethod
    def linear(
        cls, num_steps: int, beta_start: float = LINEAR_BETA_START, beta_end: float = LINEAR_BETA_END
    ) -> NoiseSchedule:
        """Betas in equal steps from beta_start to beta_end (Ho et al. 2020); the defaults are GOMIN's."""
        return cls.from_betas(np.linspace(beta_start, beta_end, num_steps, dtype=np.float32))

    @classmethod
    def cosine(cls, num_steps: int) -> NoiseSchedule:
        """ᾱ falls as a squared cosine, betas are capped at 0.999 (Nichol & Dhariwal 2021, section 3.2)."""
        return cls._from_alphas_cumprod(_cosine(num_steps))

    @classmethod
    def interpolated(cls, num_steps: int) -> NoiseSchedule:
        """Linear near t = 0 and cosine near t = T - 1, ᾱ being interpolated between; betas are capped at 0.999."""
        weight = np.arange(num_steps) / max(num_steps - 1, 1)
        linear = np.cumprod(1 - np.linspace(LINEAR_BETA_START, LINEAR_BETA_END, num_steps))
        return cls._from_alphas_cumprod((1 - weight) * linear + weight * _cosine(num_steps))

    @classmethod
    def named(cls, name: str, num_steps: int) -> NoiseSchedule:
        """A schedule by its name, one of `SCHEDULES`.

        Raises:
            ValueError: there is no such schedule.
        """
        if name not in SCHEDULES:
            raise ValueError(f"schedule {name!r}: expected {_listed(SCHEDULES)}")
        return SCHEDULES[name](num_steps)

    @classmethod
    def _from_alphas_cumprod(cls, alphas_cumprod: NDArray[np.float64]) -> NoiseSchedule:
        ratios = alphas_cumprod / np.concatenate(([1.0], alphas_cumprod[:-1]))
        return cls.from_betas(np.minimum(1 - ratios, MAX_BETA))

    def __len__(self) -> int:
        return len(self.alphas_cumprod)


SCHEDULES: dict[str, Callable[[int], NoiseSchedule]] = {
    "linear": NoiseSchedule.linear,
    "cosine": NoiseSchedule.cosine,
    "interpolated": NoiseSchedule.interpolated,
}


def _cosine(num_steps: int) -> NDArray[np.float64]:
    """ᾱ_0 … ᾱ_{num_steps-1} of the cosine schedule, uncapped: the last is nearly 0."""
    time = np.arange(num_steps + 1) / num_steps
    power = np.cos((time + COSINE_OFFSET) / (1 + COSINE_OFFSET) * np.pi / 2) ** 2
    return np.asarray(power[1:] / power[0])


class NoiseField:
    """Standard normal noise as a function of (seed, draw, absolute sample index).

    Whatever window of a signal is sampled, in whatever batch and order, it sees the noise that the whole signal would.
    One sample takes one 64-bit word of a counter-based generator (Philox, Salmon et al. 2011), with the seed as its key
    and (sample, draw) as its counter; pairs of words become pairs of normals by the Box-Muller transform. numpy's own
    normals take a varying number of words and cannot be indexed.
    """

    def __init__(self, seeds: Sequence[int], length: int, first_samples: Sequence[int] | None = None) -> None:
        """Noise for a batch.

        Args:
            seeds: (B,) within 0 … 2**64 - 1.
            length: N, samples of each item.
            first_samples: (B,) absolute index of each item's first sample; all 0 by default.

        Raises:
            ValueError: a seed or an index out of range.
        """
        self.seeds = [int(seed) for seed in seeds]
        self.length = length
        self.first_samples = [0] * len(self.seeds) if first_samples is None else [int(first) for first in first_samples]
        if len(self.first_samples) != len(self.seeds):
            raise ValueError(f"{len(self.seeds)} seeds, but {len(self.first_samples)} first samples")
        for seed in self.seeds:
            if not 0 <= seed < 2**64:
                raise ValueError(f"seed {seed} out of range; expected 0 … 2**64 - 1")
        for first in self.first_samples:
            if not 0 <= first < 2**62:
                raise ValueError(f"first sample {first} out of range; expected 0 … 2**62 - 1")

    def __call__(self, draw: int) -> Array:
        """Noise of one draw, (B, 1, N) float32."""
        items = [
            _normals(seed, draw, first, self.length) for seed, first in zip(self.seeds, self.first_samples, strict=True)
        ]
        return np.stack(items)[:, np.newaxis, :]


def _normals(seed: int, draw: int, first: int, length: int) -> Array:
    """Samples first … first + length - 1 of one draw, (length,) float32."""
    block, skip = divmod(first, _WORDS_PER_BLOCK)
    count = -(-(skip + length) // _WORDS_PER_BLOCK) * _WORDS_PER_BLOCK
    words = np.random.Philox(key=seed, counter=block + (draw << 64)).random_raw(count)
    uniform = (words >> np.uint64(11)) * 2.0**-53  # [0, 1)
    radius = np.sqrt(-2 * np.log1p(-uniform[0::2]))
    angle = 2 * np.pi * uniform[1::2]
    normals: Array = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=-1).astype(np.float32)
    return normals.reshape(-1)[skip : skip + length]


class Sampler(Protocol):
    """A way from noise to signal. It asks for predictions instead of making them: see `Chain`.

    So one caller can run many chains, of different samplers, and put what they ask into common denoiser calls.
    """

    @property
    def timesteps(self) -> Sequence[float]:
        """What the denoiser is asked with, step by step; fractional ones are allowed."""
        ...

    def chain(self, noise: NoiseSource) -> Chain:
        """A chain that begins with draw 0 of the noise."""
        ...


class DDPM:
    """GOMIN's released chain: ancestral sampling over all timesteps (Ho et al. 2020, algorithm 2).

    The predicted signal is clipped to [-1, 1]; the variance is the posterior's ("fixed small"). Coefficients are
    float32 and come from ᾱ, not from the betas, as in the program that the models were released with.
    """

    def __init__(self, schedule: NoiseSchedule, timesteps: Sequence[float] | None = None) -> None:
        """A chain over all of a schedule.

        Args:
            schedule: of the chain.
            timesteps: the denoiser's own timestep for each one of the schedule, where they are not 0, 1, 2 …
        """
        self.schedule = schedule
        ascending = range(len(schedule)) if timesteps is None else timesteps
        self.timesteps: tuple[float, ...] = tuple(float(timestep) for timestep in reversed(ascending))

    @classmethod
    def fast(cls, trained: NoiseSchedule, betas: Sequence[float] = FAST_BETAS) -> DDPM:
        """DiffWave's fast sampling: this chain over a few large betas (Kong et al. 2020, section 3.1 and appendix B).

        Each level of noise is matched with the trained schedule, linearly in √ᾱ, which gives fractional timesteps; one
        below timestep 0 takes timestep 0. The predicted signal is clipped as in the whole chain.

        Raises:
            ValueError: the last level has more noise than the denoiser was trained with.
        """
        schedule = NoiseSchedule.from_betas(betas)
        levels, own = (np.sqrt(s.alphas_cumprod.astype(np.float64)) for s in (trained, schedule))
        if own[-1] < levels[-1]:
            raise ValueError(
                f"sampler fast begins with more noise (ᾱ = {own[-1] ** 2:.3f}) than the model's last timestep has "
                f"(ᾱ = {levels[-1] ** 2:.3f}): take another sampler"
            )
        return cls(schedule, np.interp(own, levels[::-1], np.arange(len(trained))[::-1]).tolist())

    def chain(self, noise: NoiseSource) -> Chain:
        """See `Sampler.chain`."""
        alphas_cumprod = self.schedule.alphas_cumprod
        x = noise(0)
        for draw, t in enumerate(reversed(range(len(alphas_cumprod))), start=1):
            alpha_bar = alphas_cumprod[t]
            previous = alphas_cumprod[t - 1] if t > 0 else _ONE
            alpha = alpha_bar / previous
            beta = _ONE - alpha

            epsilon = yield x, self.timesteps[draw - 1]
            x0 = np.clip((x - np.sqrt(_ONE - alpha_bar) * epsilon) / np.sqrt(alpha_bar), -_ONE, _ONE)
            x = (
                np.sqrt(previous) * beta / (_ONE - alpha_bar) * x0
                + np.sqrt(alpha) * (_ONE - previous) / (_ONE - alpha_bar) * x
            )
            if t > 0:
                variance = np.maximum((_ONE - previous) / (_ONE - alpha_bar) * beta, MIN_VARIANCE)
                x = x + np.sqrt(variance) * noise(draw)
        return x


class DDIM:
    """Some of the trained timesteps; deterministic with eta 0, as noisy as DDPM with eta 1 (Song et al. 2021, eq. 12).

    Equal to diffusers' DDIMScheduler with the same betas and timestep_spacing, clip_sample=True, clip_sample_range=1,
    set_alpha_to_one=True, steps_offset=0, use_clipped_model_output=False. As there, a step goes from t to
    t - T // steps whatever the spacing: choose a number of steps that divides T, or levels of noise and timesteps drift
    apart.
    """

    def __init__(self, schedule: NoiseSchedule, steps: int, eta: float = 0.0, spacing: str = "trailing") -> None:
        """A chain over some of a schedule.

        Args:
            schedule: that the model was trained with.
            steps: how many.
            eta: share of fresh noise, 0 … 1.
            spacing: "trailing", "leading" or "linspace", as diffusers has them; "trailing" begins with the last
                timestep, where the start, which is noise alone, belongs.

        Raises:
            ValueError: steps, eta or spacing out of range.
        """
        if not 0 <= eta <= 1:
            raise ValueError(f"eta {eta:g}: expected a number from 0 (no fresh noise) to 1 (as much as ddpm)")
        self.schedule = schedule
        self.eta = eta
        total = _check_steps(steps, schedule)
        self.stride = total // steps
        descending = {
            "leading": np.arange(steps - 1.0, -1, -1) * self.stride,
            "linspace": np.linspace(0, total - 1, steps).round()[::-1],
            "trailing": _trailing(total, steps),
        }
        self.timesteps = _of_spacing(spacing, descending)

    def chain(self, noise: NoiseSource) -> Chain:
        """See `Sampler.chain`."""
        x = noise(0)
        for draw, timestep in enumerate(self.timesteps, start=1):
            t = int(timestep)
            alpha_bar = float(self.schedule.alphas_cumprod[t])
            previous = float(self.schedule.alphas_cumprod[t - self.stride]) if t >= self.stride else 1.0
            fresh = self.eta * math.sqrt((1 - previous) / (1 - alpha_bar) * (1 - alpha_bar / previous))

            epsilon = yield x, timestep
            x0 = _predicted_signal(x, epsilon, alpha_bar)
            x = math.sqrt(previous) * x0 + math.sqrt(max(1 - previous - fresh**2, 0.0)) * epsilon
            if fresh > 0:
                x = x + fresh * noise(draw)
        return x


class DPMSolver:
    """DPM-Solver++(2M): few steps, no fresh noise, second order (Lu et al. 2022, algorithm 2).

    Equal to diffusers' DPMSolverMultistepScheduler with the same betas and timestep_spacing, algorithm_type
    "dpmsolver++", solver_order=2, solver_type "midpoint", final_sigmas_type "zero" (so the last step is of first order,
    whatever lower_order_final), steps_offset=0. It has no clip_sample; thresholding=True with sample_max_value=1, its
    default, is the clipping of the predicted signal to [-1, 1] that is done here.
    """

    def __init__(self, schedule: NoiseSchedule, steps: int, spacing: str = "trailing") -> None:
        """A chain over some of a schedule.

        Args:
            schedule: that the model was trained with.
            steps: how many.
            spacing: "trailing", "leading" or "linspace", as diffusers has them for this solver: the latter two leave
                out timestep 0.

        Raises:
            ValueError: steps or spacing out of range, or so many steps that timesteps repeat.
        """
        self.schedule = schedule
        total = _check_steps(steps, schedule)
        descending = {
            "leading": np.arange(steps, 0.0, -1) * (total // (steps + 1)),
            "linspace": np.linspace(0, total - 1, steps + 1).round()[:0:-1],
            "trailing": _trailing(total, steps),
        }
        self.timesteps = _of_spacing(spacing, descending)
        if len(set(self.timesteps)) < steps:
            raise ValueError(f"steps {steps}: with spacing {spacing!r}, timesteps repeat; take fewer, or 'trailing'")

    def chain(self, noise: NoiseSource) -> Chain:
        """See `Sampler.chain`."""
        alphas_cumprod = [float(self.schedule.alphas_cumprod[int(timestep)]) for timestep in self.timesteps]
        half_log_snr = [math.log(alpha_bar / (1 - alpha_bar)) / 2 for alpha_bar in alphas_cumprod]
        x = noise(0)
        before: Array | None = None  # predicted by the step before
        for step, alpha_bar in enumerate(alphas_cumprod):
            epsilon = yield x, self.timesteps[step]
            x0 = _predicted_signal(x, epsilon, alpha_bar)
            if step + 1 == len(alphas_cumprod):
                break
            following = alphas_cumprod[step + 1]
            h = half_log_snr[step + 1] - half_log_snr[step]
            target = x0
            if before is not None:
                target = x0 + h / (half_log_snr[step] - half_log_snr[step - 1]) / 2 * (x0 - before)
            x = math.sqrt((1 - following) / (1 - alpha_bar)) * x - math.sqrt(following) * math.expm1(-h) * target
            before = x0
        return x0


def _check_steps(steps: int, schedule: NoiseSchedule) -> int:
    """The number of timesteps of a schedule, of which as many steps can be taken."""
    if not 1 <= steps <= len(schedule):
        raise ValueError(f"steps {steps}: expected 1 to {len(schedule)}, the timesteps that the model was trained with")
    return len(schedule)


def _trailing(total: int, steps: int) -> NDArray[np.float64]:
    # rounding can make one more, timestep -1, which diffusers then feeds to the model
    return np.arange(total, 0, -total / steps).round()[:steps] - 1


def _of_spacing(spacing: str, descending: Mapping[str, NDArray[np.float64]]) -> tuple[float, ...]:
    if spacing not in descending:
        raise ValueError(f"spacing {spacing!r}: expected {_listed(descending)}")
    return tuple(descending[spacing].tolist())


def _predicted_signal(x: Array, epsilon: Array, alpha_bar: float) -> Array:
    """The signal in x, (B, 1, N), if epsilon is the noise in it; clipped to [-1, 1].

    In float64, since what is left of the signal may be magnified a thousand times (the cosine schedule's end).
    """
    signal = (x - math.sqrt(1 - alpha_bar) * epsilon.astype(np.float64)) / math.sqrt(alpha_bar)
    return np.asarray(np.clip(signal, -1, 1), dtype=np.float32)


SAMPLERS = ("ddpm", "fast", "ddim", "dpm++")


def make_sampler(
    name: str,
    schedule: str | NoiseSchedule,
    steps: int | None,
    eta: float | None,
    num_diffusion_steps: int,
) -> Sampler:
    """A sampler by its name.

    Args:
        name: "ddpm" takes all timesteps; "fast" is DiffWave's six steps; "ddim" and "dpm++" take any number.
        schedule: that the model was trained with, by its name or as such.
        steps: how many; None for the sampler's own number, of which ddpm and fast have no other.
        eta: of ddim; None for 0, and for all others.
        num_diffusion_steps: timesteps that the model was trained with.

    Raises:
        ValueError: an unknown name, or a combination that makes no sense; the text tells what would.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler {name!r}: expected {_listed(SAMPLERS)}")
    if eta is not None and name != "ddim":
        raise ValueError(f"eta {eta:g}: only sampler ddim has an eta, {name} has none")
    if isinstance(schedule, str):
        schedule = NoiseSchedule.named(schedule, num_diffusion_steps)
    if len(schedule) != num_diffusion_steps:
        raise ValueError(f"schedule of {len(schedule)} timesteps: the model has {num_diffusion_steps}")
    fixed = {"ddpm": num_diffusion_steps, "fast": len(FAST_BETAS)}.get(name)
    if steps is not None and fixed not in (None, steps):
        raise ValueError(f"steps {steps}: sampler {name} takes {fixed}; ddim and dpm++ take as many as you say")
    if name == "ddpm":
        return DDPM(schedule)
    if name == "fast":
        return DDPM.fast(schedule)
    if steps is None:
        steps = min(DEFAULT_STEPS[name], num_diffusion_steps)
    return DDIM(schedule, steps, eta or 0.0) if name == "ddim" else DPMSolver(schedule, steps)


@dataclass(frozen=True)
class SamplerSettings:
    """What a request may choose, as request parameters name it; see `make_sampler`.

    Attributes:
        sampler: one of `SAMPLERS`.
        steps: None for the sampler's own number.
        schedule: one of `SCHEDULES`.
        eta: None for 0, or where the sampler has none.
    """

    sampler: str = "ddpm"
    steps: int | None = None
    schedule: str = "linear"
    eta: float | None = None

    @classmethod
    def from_config(cls, parameters: Mapping[str, str]) -> SamplerSettings:
        """The defaults that a model's config.pbtxt has, gomin.sampler, gomin.steps, gomin.schedule, gomin.eta.

        Raises:
            ValueError: a value that is no number where one is expected.
        """
        given: dict[str, object] = {}
        for name, read in (("sampler", str), ("steps", int), ("schedule", str), ("eta", float)):
            text = parameters.get(PARAMETER_PREFIX + name)
            if text is not None:
                try:
                    given[name] = read(text)
                except ValueError:
                    raise ValueError(f"config parameter {PARAMETER_PREFIX}{name} is {text!r}: no number") from None
        return cls().updated(given)

    def updated(self, parameters: Mapping[str, object]) -> SamplerSettings:
        """These with request parameters; one of another sampler brings that one's own steps and eta.

        Raises:
            ValueError: an unknown parameter, or one of another type.
        """
        for name, value in parameters.items():
            if name not in self.__dict__:
                raise ValueError(f"unknown request parameter {name!r}: expected {_listed(self.__dict__)}")
            kind, types = {"steps": ("a whole number", (int,)), "eta": ("a number", (int, float))}.get(
                name, ("a name", (str,))
            )
            if not isinstance(value, types) or isinstance(value, bool):
                raise ValueError(f"{name} {value!r}: expected {kind}")
        base = self
        if parameters.get("sampler", self.sampler) != self.sampler:
            base = replace(self, steps=None, eta=None)
        return replace(base, **parameters)  # type: ignore[arg-type]

    def resolved(self, num_diffusion_steps: int) -> SamplerSettings:
        """These with the number of steps said.

        Raises:
            ValueError: see `make_sampler`.
        """
        return replace(self, steps=len(self.make(num_diffusion_steps).timesteps))

    def make(self, num_diffusion_steps: int) -> Sampler:
        """The sampler, for a model with so many timesteps.

        Raises:
            ValueError: see `make_sampler`.
        """
        return make_sampler(self.sampler, self.schedule, self.steps, self.eta, num_diffusion_steps)

    def to_parameters(self) -> dict[str, str | int | float]:
        """As request parameters."""
        return {name: value for name, value in self.__dict__.items() if value is not None}


@dataclass(frozen=True)
class Tiling:
    """How much one denoiser call holds, so that the denoiser's memory does not grow with the mel.

    A mel of more frames is denoised in tiles of one length, at every step, whose outputs are trimmed by the halo: the
    first begins at frame 0, the last ends at the last frame, so the zero padding falls where it would. The result
    equals the untiled one to float rounding.

    Attributes:
        hop_length: samples of a frame.
        halo_frames: frames to either side that the denoiser's output depends on.
        tile_frames: the most frames of a tile, halos included. A call holds several tiles, of one length, as long as
            they have no more frames together.
        max_items: the most tiles of a call.

    Raises:
        ValueError: a tile that is all halo.
    """

    hop_length: int
    halo_frames: int
    tile_frames: int = TILE_FRAMES
    max_items: int = 1

    def __post_init__(self) -> None:
        if self.tile_frames <= 2 * self.halo_frames:
            raise ValueError(
                f"tiles of {self.tile_frames} frames: expected more than {2 * self.halo_frames}, the denoiser's halo "
                "to both sides"
            )

    def tiles(self, frames: int) -> list[tuple[int, int, int]]:
        """(first, begin, end) of each tile of a mel: it takes frames from `first`, and gives begin … end - 1."""
        length = min(frames, self.tile_frames)
        found: list[tuple[int, int, int]] = []
        begin = 0
        while begin < frames:
            first = min(max(begin - self.halo_frames, 0), frames - length)
            end = frames if first + length == frames else first + length - self.halo_frames
            found.append((first, begin, end))
            begin = end
        return found

    def items(self, frames: int) -> int:
        """How many tiles of a length a call may hold."""
        return max(1, min(self.max_items, self.tile_frames // frames))


@dataclass(frozen=True, eq=False)
class Job:
    """What one request asks for.

    Attributes:
        mel: (B, M, T) float32.
        noise: of B items, hop_length·T samples each.
        sampler: how.
        is_cancelled: whether nobody waits for it any more.
    """

    mel: Array
    noise: NoiseSource
    sampler: Sampler
    is_cancelled: Callable[[], bool] = lambda: False


def sample(denoise: Denoiser, mel: Array, noise: NoiseSource, sampler: Sampler) -> Array:
    """Run one chain to its end, untiled.

    Args:
        denoise: see `Denoiser`.
        mel: (B, M, T) float32.
        noise: see `NoiseSource`; its N must be the denoiser's samples for T frames.
        sampler: for example DDPM(NoiseSchedule.linear(50)).

    Returns:
        (B, 1, N) float32 signal.
    """
    for signal in sample_steps(denoise, mel, noise, sampler):  # noqa: B007
        pass
    return signal


def sample_steps(denoise: Denoiser, mel: Array, noise: NoiseSource, sampler: Sampler) -> Iterator[Array]:
    """Yield the starting noise, then the signal after every step, each (B, 1, N); see `sample`."""
    chain = sampler.chain(noise)
    signal, timestep = next(chain)
    while True:
        yield signal
        predicted = denoise(signal, np.full(len(signal), timestep, dtype=np.float32), mel)
        try:
            signal, timestep = chain.send(predicted)
        except StopIteration as end:
            yield end.value
            return


def sample_jobs(denoise: Denoiser, jobs: Sequence[Job], tiling: Tiling) -> list[Array | None]:
    """Run many chains side by side; where their tiles have one length, they share denoiser calls.

    Samplers, steps, seeds and lengths may differ: the denoiser takes a timestep for each item. What a job gets does not
    depend on the others, but for the denoiser's rounding.

    Args:
        denoise: see `Denoiser`; never called with more than `tiling` allows.
        jobs: what to do.
        tiling: how much a call may hold.

    Returns:
        (B, 1, N) signal of each job; None for those that were cancelled, which is looked up before every call.
    """
    results: list[Array | None] = [None] * len(jobs)
    chains = {index: job.sampler.chain(job.noise) for index, job in enumerate(jobs)}
    asked = {index: next(chain) for index, chain in chains.items()}
    while asked:
        predicted = _predict(denoise, {index: jobs[index] for index in asked}, asked, tiling)
        asked = {}
        for index, noise in predicted.items():
            try:
                asked[index] = chains[index].send(noise)
            except StopIteration as end:
                results[index] = end.value
    return results


def _predict(
    denoise: Denoiser, jobs: Mapping[int, Job], asked: Mapping[int, tuple[Array, float]], tiling: Tiling
) -> dict[int, Array]:
    """What the denoiser says to each job's signal and timestep; jobs that were cancelled are left out."""
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


@dataclass(frozen=True)
class DiffusionModel:
    """What the config.pbtxt of a diffusion model says about its chains.

    Attributes:
        num_diffusion_steps: timesteps that the denoiser was trained with.
        tiling: how it is called.
        defaults: what requests get that do not choose.

    Raises:
        ValueError: defaults that make no sense.
    """

    num_diffusion_steps: int
    tiling: Tiling
    defaults: SamplerSettings

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
                raise ValueError(f"config parameter {PARAMETER_PREFIX}{name} is {text!r}: no whole number") from None

        tiling = Tiling(
            number("hop_length"), number("halo_frames"), number("tile_frames", TILE_FRAMES), max(1, max_batch_size)
        )
        return cls(number("num_diffusion_steps"), tiling, SamplerSettings.from_config(parameters))

    def job(
        self,
        mel: Array,
        seeds: NDArray[np.integer[Any]],
        first_samples: NDArray[np.integer[Any]] | None,
        parameters: Mapping[str, object],
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Job:
        """A request as a job.

        Args:
            mel: (B, M, T) float32.
            seeds: (B, 1).
            first_samples: (B, 1) absolute index of each item's first sample; None for 0.
            parameters: request parameters; see `SamplerSettings`.
            is_cancelled: whether nobody waits for it any more.

        Raises:
            ValueError: something of it makes no sense.
        """
        sampler = self.defaults.updated(parameters).make(self.num_diffusion_steps)
        if mel.shape[-1] == 0:
            raise ValueError("mel has no frames")
        if not np.isfinite(mel).all():
            raise ValueError("mel contains NaN or infinite values")
        first = np.zeros(len(seeds), np.int64) if first_samples is None else first_samples[:, 0]
        noise = NoiseField(seeds[:, 0].tolist(), self.tiling.hop_length * mel.shape[-1], first.tolist())
        return Job(mel, noise, sampler, is_cancelled)


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"
