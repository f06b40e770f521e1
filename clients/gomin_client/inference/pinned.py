"""One version of one model on a transport, and the requests that windows of a mel become."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from numbers import Integral
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from gomin_client.contract import model as contract
from gomin_client.contract.model import SHORT_NAMES, ModelContract
from gomin_client.errors import ContractError, GominError, InferenceError, UnknownModelError, UsageError
from gomin_client.inference.checks import Blocks, checked_mel, refuse_suspicion
from gomin_client.inference.stream import Tally, Workers, trimmed, vocode
from gomin_client.inference.windows import Window, Windower, choose_size
from gomin_client.mel import scales
from gomin_client.mel.features import LOUDEST, Mel, MelBatch, MelConfig, Wave, mel_blocks
from gomin_client.mel.resampling import resample_blocks
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.transports.base import ModelInfo, Transport
from gomin_client.transports.connection import Connection
from gomin_client.transports.statistics import Statistics

# A request may take a minute, and another minute for every second of audio and step of a chain: about 20 times the time
# that two CPU cores need for the released models. The deadline ends requests that would never end.
DEADLINE_S = 60.0
DEADLINE_PER_AUDIO_SECOND = 60.0


class PinnedModel:
    """A vocoder model in one version, by default the newest that was ready, so that a file is never made by two.

    Attributes:
        model: the model's name on the server.
        version: the version that is called.
        contract: its mel settings, and the rest of its description.
        sampling: the sampling chain of a diffusion model; None for a GAN.
        sample_rate: sample rate of the audio, in Hz.
        takes_seed: whether the model draws noise: a diffusion model does, a GAN does not.
        chain_halo_frames: number of mel frames to either side that a sample depends on; a stream lags behind by as
            many, at least. Every denoiser step of a chain adds the halo of one step.
    """

    def __init__(
        self,
        transport: Transport,
        model: str,
        sampling: SamplerSettings | None,
        connection: Connection,
        window: int | None,
        in_flight: int,
        version: int | None = None,
    ) -> None:
        """Read the model's description; if that fails, the transport is closed.

        Args:
            transport: where it runs.
            model: its name, or a short name.
            sampling: settings that differ from the model's own, if any.
            connection: the deadline is used here.
            window: see `Vocoder`.
            in_flight: see `Vocoder`.
            version: see `Vocoder`.

        Raises:
            UsageError, ContractError, ServerError: see `Vocoder`.
        """
        self._transport = transport
        self._timeout_s = connection.timeout_s
        self._in_flight = in_flight
        self._workers = Workers()
        self._ended: threading.Event | None = None
        try:
            if not isinstance(model, str):
                raise UsageError(f"model {model!r}: expected its name")
            self.model = SHORT_NAMES.get(model, model)
            if not isinstance(in_flight, Integral) or in_flight < 1:
                raise UsageError(f"{in_flight} windows in flight: expected at least 1")
            self._describe(sampling, version)
            self._window: int = choose_size(window, self.chain_halo_frames, self.contract.max_frames)
        except BaseException:
            transport.close()
            raise

    def _describe(self, sampling: SamplerSettings | None, version: int | None) -> None:
        described = self._transport.describe(self.model)
        if version is not None and version not in described.versions:
            ready = ", ".join(map(str, described.versions))
            raise UnknownModelError(f"model {self.model} has no version {version!r} that is ready; it has {ready}")
        self.version = described.versions[-1] if version is None else int(version)
        self._max_batch_size = described.max_batch_size
        self.contract = ModelContract.from_parameters(self.model, described.parameters)
        self.contract.check_kind(self.model)
        self._described = described
        self.sample_rate = self.contract.mel.sample_rate
        self.takes_seed = self.contract.kind == contract.DIFFUSION
        self._choose_chain(sampling)

    def _choose_chain(self, sampling: SamplerSettings | None) -> None:
        self.sampling = _resolved(sampling, self.contract, self._described)
        self._steps = 1 if self.sampling is None or self.sampling.steps is None else self.sampling.steps
        self.chain_halo_frames = self.contract.halo_frames * self._steps

    @property
    def url(self) -> str:
        """The URL at which the model runs."""
        return self._transport.url

    @property
    def window(self) -> int:
        """Number of mel frames in one request."""
        return self._window

    @property
    def first_window(self) -> int:
        """Number of frames of a first window that is done soon: the halo, and 16 frames of audio."""
        return min(self.chain_halo_frames + 16, self._window)

    def with_window(self, window: int) -> Self:
        """The same model with windows of another size; both share one connection, which either closes.

        Raises:
            UsageError: the window consists of halos, or is longer than the model takes.
        """
        other = self._copy()
        other._window = choose_size(window, self.chain_halo_frames, self.contract.max_frames)
        return other

    def with_chain(self, sampling: SamplerSettings, window: int | None = None) -> Self:
        """The same model with another sampling chain, on the same connection; arguments and errors: see `Vocoder`."""
        other = self._copy()
        other._choose_chain(sampling)
        other._window = choose_size(window, other.chain_halo_frames, self.contract.max_frames)
        return other

    def until(self, ended: threading.Event) -> Self:
        """The same model, on the same connection; once the event is set, its calls send no more requests.

        They end with an `InferenceError` instead.
        """
        other = self._copy()
        other._ended = ended
        return other

    def _copy(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __reduce__(self) -> NoReturn:
        raise UsageError(f"a {type(self).__name__} holds connections and cannot be pickled: create one in each process")

    def comment(self, seed: int | None) -> str:
        """A description of how audio was made, sufficient to make it again."""
        made = f"{self.model} {self.version}"
        if self.sampling is None:
            return made
        chain = ", ".join(f"{name} {value}" for name, value in self.sampling.to_parameters().items())
        return f"{made}, seed {seed}, {chain}"

    def check_seed(self, seed: int) -> None:
        """Refuse a seed that the model cannot take.

        Raises:
            UsageError: it is out of range, or the model draws no noise.
        """
        if not self.takes_seed:
            raise UsageError(f"model {self.model} draws no noise: a seed has no effect on it")
        if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
            raise UsageError(f"seed {seed!r}: expected a whole number, 0 … 2**64 - 1")

    def prepare(self) -> None:
        """See `Transport.prepare`."""
        self._transport.prepare(self.model, self.version)

    def statistics(self) -> Statistics | None:
        """What the server has counted for this model so far; None if the model runs in-process."""
        return self._transport.statistics(self.model, self.version)

    def check_mels(self, mels: Iterable[Any], *, force: bool = False) -> None:
        """Refuse a mel that the model cannot take, or that does not look like one of GOMIN's.

        Args:
            mels: its blocks, at least one: (n_mels, any number of frames) each, or (batch, n_mels, frames).
            force: check its shape only, not its values.

        Raises:
            ContractError: a mel of another shape, or not finite; `SuspiciousMelError`: one that looks like another
                program's.
        """
        suspicion = scales.suspicion_of_blocks(self.checked_blocks(mels))
        refuse_suspicion(None if force else suspicion)

    def checked_mel(self, mel: Any, config: MelConfig | None = None, *, force: bool = False) -> Mel | MelBatch:
        """A whole mel as float32: (n_mels, frames), or (batch, n_mels, frames).

        Args:
            mel: it, as Python code passes it.
            config: see `Vocoder.synthesize`.
            force: check its shape only, not its values.

        Raises:
            UsageError: it is not an array, or its settings are no `MelConfig`.
            ContractError: other settings; and see `check_mels`.
        """
        if not isinstance(config, MelConfig | None):
            raise UsageError(f"mel_config {config!r}: expected a `MelConfig`")
        if config is not None:
            self.contract.check_mel(self.model, config)
        checked = checked_mel(mel, self.contract, self.model)
        refuse_suspicion(None if force else scales.suspicion(checked))
        return checked

    def checked_blocks(self, mels: Iterable[Any], *, in_part: bool = False) -> Blocks:
        """A mel for `vocoded`, whose blocks are checked as they arrive.

        Args:
            mels: see `check_mels`.
            in_part: check each block for values that cannot come from a recording, too.

        Raises:
            UsageError: see `Blocks`. ContractError and `SuspiciousMelError` come while it is read.
        """

        def check(given: Any) -> Mel | MelBatch:
            mel = checked_mel(given, self.contract, self.model)
            refuse_suspicion(scales.suspicion(mel, part=True) if in_part else None)
            return mel

        return Blocks(mels, 2, check, "items")

    def vocoded(self, mels: Iterable[MelBatch], seed: int | None, first_window: int | None = None) -> Iterator[Wave]:
        """Audio of a mel whose values and shape have been checked; see `Vocoder.stream`.

        Args:
            mels: (batch, n_mels, any number of frames) each.
            seed: see `Vocoder.synthesize`.
            first_window: see `Vocoder.stream`.

        Yields:
            (batch, samples) float32 each.
        """
        if seed is not None:
            self.check_seed(seed)
        elif self.takes_seed:
            seed = fresh_seed()
        windower = Windower(self._window, self.chain_halo_frames, first_window)
        return vocode(mels, windower, partial(self._infer, seed), self._workers, self._in_flight)

    def analyzed(self, waves: Iterable[Wave], sample_rate: float) -> Iterator[MelBatch]:
        """The model's mel of a recording whose samples have been checked; see `Vocoder.analyze`.

        Args:
            waves: (channels, any number of samples) each.
            sample_rate: see `Vocoder.analyze`.

        Yields:
            (channels, n_mels, frames) float32 each.
        """
        return mel_blocks(resample_blocks(waves, sample_rate, self.sample_rate), self.contract.mel)

    def reconstructed(
        self,
        waves: Iterable[Wave],
        sample_rate: float,
        *,
        trim: bool = True,
        seed: int | None = None,
        first_window: int | None = None,
    ) -> Iterator[Wave]:
        """Audio of a recording whose samples have been checked; see `Vocoder.reconstruct_stream`.

        Args:
            waves: (channels, any number of samples) each.
            sample_rate: see `Vocoder.reconstruct`.
            trim: see `Vocoder.reconstruct`.
            seed: see `Vocoder.synthesize`.
            first_window: see `Vocoder.stream`.

        Yields:
            (channels, samples) float32 each.
        """
        resampled = Tally(resample_blocks(waves, sample_rate, self.sample_rate))
        parts = self.vocoded(mel_blocks(resampled, self.contract.mel), seed, first_window)
        return trimmed(parts, resampled) if trim else parts

    def _infer(self, seed: int | None, mel: MelBatch, window: Window) -> Wave:
        """Audio of one window, in as many requests as the model's bounds make necessary: of items, and of frames.

        Args:
            seed: of a model that takes one; None for others.
            mel: (batch, n_mels, frames).
            window: its place in the whole mel.

        Returns:
            (batch, hop_length · frames).
        """
        inputs: dict[str, NDArray[Any]] = {contract.MEL: mel}
        items, _, frames = mel.shape
        hop_length = self.contract.mel.hop_length
        if seed is not None:
            inputs[contract.SEED] = np.full((items, 1), seed, dtype=np.uint64)
            inputs[contract.FIRST_SAMPLE] = np.full((items, 1), window.first * hop_length, dtype=np.int64)
        step = self._max_batch_size or items
        if self.contract.max_frames is not None:
            step = max(1, min(step, self.contract.max_frames // frames))  # a window by itself never exceeds it
        deadline = self._deadline(min(step, items) * frames * hop_length / self.sample_rate)
        # sent even if they are the model's defaults: those may change with its next version
        parameters = None if self.sampling is None else self.sampling.to_parameters()
        parts = []
        for first in range(0, items, step):
            self._check_wanted()
            part = {name: tensor[first : first + step] for name, tensor in inputs.items()}
            answer = self._transport.infer(self.model, self.version, part, deadline, parameters)
            parts.append(self._checked_audio(answer, (len(part[contract.MEL]), 1, hop_length * frames)))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _check_wanted(self) -> None:
        """Raise an `InferenceError` if the event of `until` is set."""
        if self._ended is not None and self._ended.is_set():
            raise InferenceError(f"{self.url}: the call was cancelled")

    def _deadline(self, audio_seconds: float) -> float:
        """Deadline of a request for audio of that duration, all items together, in seconds."""
        if self._timeout_s is not None:
            return self._timeout_s
        return DEADLINE_S + DEADLINE_PER_AUDIO_SECOND * audio_seconds * self._steps

    def _checked_audio(self, answer: dict[str, NDArray[Any]], expected: tuple[int, ...]) -> Wave:
        """(batch, samples) of an answer.

        Raises:
            InferenceError: it has no audio, or audio that is not finite or far beyond full scale.
            ContractError: audio of another shape.
        """
        waves = answer.get(contract.AUDIO)
        kind: type[GominError] = InferenceError
        if waves is None:
            problem = f"without the output {contract.AUDIO}; it sent {', '.join(sorted(answer)) or 'nothing'}"
        elif waves.dtype != np.float32:
            problem = f"with audio of {waves.dtype}; expected float32"
        elif waves.shape != expected:
            kind, problem = ContractError, f"with audio of shape {waves.shape}; expected {expected}"
        elif not np.isfinite(waves).all():
            problem = "with NaN or infinite samples"
        elif (loudest := float(np.abs(waves).max(initial=0))) > LOUDEST:
            problem = f"with samples up to {loudest:.3g}; full scale is ±1"
        else:
            return waves[:, 0]
        raise kind(f"{self.url}: model {self.model} answered {problem}")

    def close(self) -> None:
        """Close the connection; requests in flight end with an error."""
        self._transport.close()
        self._workers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def fresh_seed() -> int:
    """A random seed, short enough to be typed again."""
    return secrets.randbits(32)


def _resolved(sampling: SamplerSettings | None, described: ModelContract, info: ModelInfo) -> SamplerSettings | None:
    """The whole sampling chain of a diffusion model; None for a GAN."""
    if described.num_diffusion_steps is None:
        if sampling is not None and (given := ", ".join(sampling.to_parameters())):
            raise UsageError(f"model {info.name} has no sampling chain: {given} have no effect on it")
        return None
    try:
        default = SamplerSettings.from_config(info.parameters)
        return (sampling or default).over(default).resolved(described.num_diffusion_steps)
    except ValueError as error:
        raise UsageError(f"model {info.name}: {error}") from error
