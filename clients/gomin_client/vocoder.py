"""The Python API: audio → mel → model → audio, through any transport."""

from __future__ import annotations

import secrets
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client import DEFAULT_URL
from gomin_client.contract import model as contract
from gomin_client.contract.model import SHORT_NAMES, VOCODER_KINDS, ModelContract
from gomin_client.errors import ContractError, InferenceError, SuspiciousMelError, UsageError
from gomin_client.inference import windows
from gomin_client.inference.checks import alike, checked_wave
from gomin_client.inference.stream import vocode
from gomin_client.inference.windows import Window, Windower
from gomin_client.inference.workers import Workers
from gomin_client.mel import resampling, scales
from gomin_client.mel.features import Mel, MelConfig, Wave, mel_blocks
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.transports.base import Parameters, Statistics
from gomin_client.transports.connection import Connection
from gomin_client.transports.registry import connect


class Vocoder:
    """One version of one model, wherever it runs; safe to use from several threads at a time.

    The version is chosen once, the newest that is ready, so that a file is never made by two. A server that goes away
    and comes back is tried again, see `Connection`; a request that was lost is sent once more.

    Attributes:
        model: the model's name on the server.
        version: the version that is called.
        contract: its mel settings and what else it says about itself.
        window: mel frames that are vocoded at a time.
        sampling: the chain of a diffusion model; None of a GAN.
    """

    def __init__(
        self,
        url: str | Sequence[str] = DEFAULT_URL,
        model: str = "gan",
        *,
        connection: Connection | None = None,
        window: int | None = None,
        in_flight: int = 2,
        sampler: str | None = None,
        steps: int | None = None,
        schedule: str | None = None,
        eta: float | None = None,
    ) -> None:
        """Connect, and read the model's settings.

        Args:
            url: grpc://HOST:PORT, http://HOST:PORT, local:DIRECTORY, or HOST:PORT (gRPC); grpcs://, https:// with TLS;
                dns:///NAME:PORT for a name with several addresses. Several gRPC URLs share the work.
            model: "gan", "diffusion", or the name of a model.
            connection: how long to wait and to go on trying, headers, TLS files; the defaults of `Connection` if left
                out.
            window: mel frames that are vocoded at a time, see `windowing`; a default for the model's halo if left out.
            in_flight: windows of one mel that are under way at a time.
            sampler: of a diffusion model, see `sampling.settings`, as for the next three; the model's own default
                if left out.
            steps: denoiser steps.
            schedule: noise schedule.
            eta: share of fresh noise.

        Raises:
            UsageError: a malformed URL, a window that consists of halos, or a chain that makes no sense;
                UnknownModelError: no such model there.
            ServerError: the server cannot be reached or is not ready.
            ContractError: the model is not a GOMIN vocoder.
        """
        if not isinstance(in_flight, int) or in_flight < 1:
            raise UsageError(f"{in_flight} windows in flight: expected at least 1")
        self.model = SHORT_NAMES.get(model, model)
        self._connection = connection or Connection()
        self._in_flight = in_flight
        self._workers = Workers()
        weakref.finalize(self, self._workers.close)  # of one that is dropped without being closed
        self._transport = connect(url, self._connection)
        try:
            described = self._transport.describe(self.model)
            self.version = described.versions[-1]
            self._max_batch_size = described.max_batch_size
            self.contract = ModelContract.from_parameters(self.model, described.parameters)
            if self.contract.kind not in VOCODER_KINDS:
                raise ContractError(
                    f"model {self.model} is a {self.contract.kind}: it does not make audio from a mel; "
                    f"models that do are of kind {' or '.join(VOCODER_KINDS)}"
                )
            chain = {"sampler": sampler, "steps": steps, "schedule": schedule, "eta": eta}
            self.sampling = self._sampling(described.parameters, chain)
            self.window = windows.default_size(self.halo_frames) if window is None else window
            windows.check(self.window, self.halo_frames)
        except BaseException:
            self._transport.close()
            raise

    @property
    def url(self) -> str:
        """Where the model runs."""
        return self._transport.url

    @property
    def sample_rate(self) -> int:
        """Sample rate of the audio, in Hz."""
        return self.contract.mel.sample_rate

    @property
    def takes_seed(self) -> bool:
        """Whether the model draws noise: diffusion does, a GAN does not."""
        return self.contract.kind == contract.DIFFUSION

    @property
    def halo_frames(self) -> int:
        """Mel frames to either side that a sample depends on: what a stream lags behind, at the least.

        A chain of denoiser steps sees one step's halo farther with every step.
        """
        return self.contract.halo_frames * self._steps

    @property
    def _steps(self) -> int:
        """Calls of a network for each sample."""
        return 1 if self.sampling is None or self.sampling.steps is None else self.sampling.steps

    def comment(self, seed: int | None) -> str:
        """What made a file, in words: enough to make it again."""
        made = f"{self.model} {self.version}"
        if self.sampling is None:
            return made
        chain = ", ".join(f"{name} {value}" for name, value in self.sampling.to_parameters().items())
        return f"{made}, seed {seed}, {chain}"

    @property
    def first_window(self) -> int:
        """Frames of a first window that is done soon: the halo, and 16 frames of audio."""
        return min(self.halo_frames + 16, self.window)

    def check_seed(self, seed: int) -> None:
        """Refuse a seed that the model cannot take.

        Raises:
            UsageError: it is out of range, or the model draws no noise.
        """
        if not self.takes_seed:
            raise UsageError(f"model {self.model} draws no noise: a seed has no effect on it")
        if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
            raise UsageError(f"seed {seed!r}: expected a whole number, 0 … 2**64 - 1")

    def analyze(self, wave: NDArray[np.floating[Any]], sample_rate: int) -> Mel:
        """The mel spectrogram of a recording.

        Args:
            wave: (samples,) or (channels, samples) waveform, full scale ±1.
            sample_rate: of the waveform, in Hz; it is resampled to the model's.

        Returns:
            (n_mels, frames) or (channels, n_mels, frames) float32.

        Raises:
            UsageError: an empty waveform, of another shape, or not finite; or no sample rate.
        """
        wave = checked_wave(wave, sample_rate)
        resampled = resampling.resample_blocks([np.atleast_2d(wave)], sample_rate, self.sample_rate)
        mel = np.concatenate(list(mel_blocks(resampled, self.contract.mel)), axis=-1)
        return mel[0] if wave.ndim == 1 else mel

    def synthesize(
        self,
        mel: NDArray[np.floating[Any]],
        seed: int | None = None,
        *,
        mel_config: MelConfig | None = None,
        force: bool = False,
    ) -> Wave:
        """Audio of a mel spectrogram.

        Args:
            mel: (n_mels, frames), or (batch, n_mels, frames).
            seed: of a diffusion model's noise, the same for all items; a fresh one if left out.
            mel_config: the settings that the mel was made with, where they are known: they must be the model's.
            force: take values that cannot come from a recording; see `conventions`, also for how to convert other mels.

        Returns:
            (hop_length·frames,) float32, or (batch, hop_length·frames).

        Raises:
            ContractError: a mel of another shape or other settings, or not finite.
            SuspiciousMelError: a mel that does not look like one of GOMIN's.
            UsageError: a seed for a model that takes none.
            InferenceError, ServerError: see `Transport.infer`.
        """
        if mel_config is not None:
            self.contract.check_mel(self.model, mel_config)
        self.check_mels([mel], force=force)
        batch = self._checked_block(mel)
        parts = list(self._vocode([batch], self._checked_seed(seed), None))
        waves = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        return waves[0] if np.ndim(mel) == 2 else waves

    def stream(
        self,
        mels: Iterable[NDArray[np.floating[Any]]],
        seed: int | None = None,
        *,
        first_window: int | None = None,
        force: bool = False,
    ) -> Iterator[Wave]:
        """Audio of a mel spectrogram that comes block by block, as soon as it is made.

        It lags behind the mel by `halo_frames` and the rest of a window: for live input choose a small `window`. The
        mel is read in a thread of its own, no faster than audio is taken; its end flushes the rest. Put together, the
        audio is that of the whole mel (within 1e-5; of a diffusion model 1e-4), whatever the blocks and windows.

        Args:
            mels: (n_mels, any number of frames) each, or (batch, n_mels, frames).
            seed: see `synthesize`.
            first_window: frames of the first window, more than `halo_frames`, so that audio comes soon; those after it
                double in size until they are `window` long. All of one size by default, which servers can batch.
            force: see `synthesize`; of a stream only values that lie far out are refused, not a mean.

        Yields:
            (samples,) float32 each, or (batch, samples): whole frames, hop_length samples each.

        Raises:
            As `synthesize`; audio before an error has been yielded.
        """
        windows.check(self.window, self.halo_frames, first_window)  # not only when audio is first asked for
        return self._stream(mels, self._checked_seed(seed), first_window, force)

    def _stream(
        self, mels: Iterable[NDArray[np.floating[Any]]], seed: int | None, first_window: int | None, force: bool
    ) -> Iterator[Wave]:
        flat = False

        def checked() -> Iterator[Mel]:
            nonlocal flat
            for mel in mels:
                if np.ndim(mel) >= 2 and np.shape(mel)[-1] == 0:
                    continue  # a source that has nothing new
                flat = np.ndim(mel) == 2
                block = self._checked_block(mel)
                if not force and (doubt := scales.suspicion(block, part=True)) is not None:
                    raise SuspiciousMelError(f"mel {doubt}")
                yield block

        for part in self._vocode(alike(checked(), "items"), seed, first_window):
            yield part[0] if flat else part

    def check_mels(self, mels: Iterable[NDArray[np.floating[Any]]], *, force: bool = False) -> None:
        """Refuse a mel that the model cannot take, or that does not look like one of GOMIN's.

        Args:
            mels: blocks of it, at least one; see `stream`.
            force: do not look at its values.

        Raises:
            ContractError, SuspiciousMelError: see `synthesize`.
        """
        blocks = map(self._checked_block, mels)
        if force:
            for _ in blocks:
                pass
        elif (suspicion := scales.suspicion_of_blocks(blocks)) is not None:
            raise SuspiciousMelError(f"mel {suspicion}")

    def reconstruct(
        self, wave: NDArray[np.floating[Any]], sample_rate: int, *, trim: bool = True, seed: int | None = None
    ) -> Wave:
        """A recording turned into a mel spectrogram and back.

        Args:
            wave: (samples,) or (channels, samples) waveform, full scale ±1.
            sample_rate: of the waveform, in Hz.
            trim: cut the result to the recording's own length; GOMIN's program leaves up to one hop more.
            seed: see `synthesize`.

        Returns:
            (samples,) or (channels, samples) float32 at the model's sample rate.
        """
        wave = checked_wave(wave, sample_rate)
        return np.concatenate(list(self.reconstruct_stream([wave], sample_rate, trim=trim, seed=seed)), axis=-1)

    def reconstruct_stream(
        self,
        waves: Iterable[NDArray[np.floating[Any]]],
        sample_rate: int,
        *,
        trim: bool = True,
        seed: int | None = None,
        first_window: int | None = None,
    ) -> Iterator[Wave]:
        """`reconstruct` for a recording that comes block by block; see `stream`.

        Args:
            waves: (any number of samples,) each, or (channels, samples).
            sample_rate: of the waveform, in Hz.
            trim: see `reconstruct`.
            seed: see `synthesize`.
            first_window: see `stream`.

        Yields:
            (samples,) float32 each, or (channels, samples), at the model's sample rate.
        """
        windows.check(self.window, self.halo_frames, first_window)
        return self._reconstruct(waves, sample_rate, trim, self._checked_seed(seed), first_window)

    def _reconstruct(
        self,
        waves: Iterable[NDArray[np.floating[Any]]],
        sample_rate: int,
        trim: bool,
        seed: int | None,
        first_window: int | None,
    ) -> Iterator[Wave]:
        flat = False
        samples = 0

        def checked() -> Iterator[Wave]:
            nonlocal flat
            for wave in waves:
                if np.shape(wave)[-1:] == (0,):
                    continue
                flat = np.ndim(wave) == 1
                yield np.atleast_2d(checked_wave(wave, sample_rate))

        def counted() -> Iterator[Wave]:
            nonlocal samples
            waves = alike(checked(), "channels")
            for wave in resampling.resample_blocks(waves, sample_rate, self.sample_rate):
                samples += wave.shape[-1]
                yield wave

        made = 0
        for part in self._vocode(mel_blocks(counted(), self.contract.mel), seed, first_window):
            # what is too much is at the very end, which is made when all samples are known
            kept = part[..., : samples - made] if trim else part
            made += kept.shape[-1]
            yield kept[0] if flat else kept

    def _vocode(self, mels: Iterable[Mel], seed: int | None, first_window: int | None) -> Iterator[Wave]:
        """(batch, n_mels, frames) blocks → (batch, samples) parts."""

        def infer(mel: Mel, window: Window) -> Wave:
            inputs: dict[str, NDArray[Any]] = {contract.MEL: mel}
            if seed is not None:
                first_sample = window.first * self.contract.mel.hop_length
                inputs[contract.SEED] = np.full((len(mel), 1), seed, dtype=np.uint64)
                inputs[contract.FIRST_SAMPLE] = np.full((len(mel), 1), first_sample, dtype=np.int64)
            return self._infer(inputs)

        windower = Windower(self.window, self.halo_frames, first_window)
        return vocode(mels, windower, infer, self._workers, self._in_flight)

    def _infer(self, inputs: dict[str, NDArray[Any]]) -> Wave:
        """(batch, samples): in as many requests as the model's largest batch makes necessary."""
        items, _, frames = inputs[contract.MEL].shape
        step = self._max_batch_size or items
        seconds = frames * self.contract.mel.hop_length / self.sample_rate
        deadline = self._connection.deadline(min(step, items) * seconds, self._steps)
        parts = []
        for first in range(0, items, step):
            part = {name: tensor[first : first + step] for name, tensor in inputs.items()}
            waves = self._transport.infer(self.model, self.version, part, deadline, self._parameters)[contract.AUDIO]
            expected = (len(part[contract.MEL]), 1, self.contract.mel.hop_length * frames)
            if waves.shape != expected:
                raise ContractError(
                    f"model {self.model} answered with audio of shape {waves.shape}; expected {expected}"
                )
            if not np.isfinite(waves).all():
                raise InferenceError(f"model {self.model} answered with NaN or infinite samples")
            parts.append(waves[:, 0])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @property
    def _parameters(self) -> Parameters | None:
        """Of every request, also where they are the model's defaults: those may change with its next version."""
        return None if self.sampling is None else self.sampling.to_parameters()

    def _sampling(self, parameters: Mapping[str, str], chain: Mapping[str, Any]) -> SamplerSettings | None:
        given = {name: value for name, value in chain.items() if value is not None}
        if self.contract.num_diffusion_steps is None:
            if given:
                raise UsageError(f"model {self.model} has no sampling chain: {', '.join(given)} have no effect on it")
            return None
        try:
            default = SamplerSettings.from_config(parameters)
            return SamplerSettings.from_parameters(given).over(default).resolved(self.contract.num_diffusion_steps)
        except ValueError as error:
            raise UsageError(f"model {self.model}: {error}") from error

    def _checked_seed(self, seed: int | None) -> int | None:
        """The seed for a model that takes one, None for others."""
        if seed is not None:
            self.check_seed(seed)
        return fresh_seed() if seed is None and self.takes_seed else seed

    def _checked_block(self, mel: NDArray[np.floating[Any]]) -> Mel:
        """(batch, n_mels, frames) float32 of a block of either number of axes."""
        block = np.asarray(mel, dtype=np.float32)
        block = block[np.newaxis] if block.ndim == 2 else block
        if block.ndim != 3 or block.shape[1] != self.contract.mel.n_mels or 0 in block.shape:
            raise ContractError(
                f"mel has shape {np.shape(mel)}; model {self.model} takes ({self.contract.mel.n_mels}, frames)"
                + scales.shape_hint(np.shape(mel), self.contract.mel.n_mels)
            )
        if not np.isfinite(block).all():
            raise ContractError("mel contains NaN or infinite values")
        return block

    def statistics(self) -> Statistics | None:
        """What the server has counted of this model so far; None in-process."""
        return self._transport.statistics(self.model, self.version)

    def close(self) -> None:
        """Close the connection; what is under way ends with an error."""
        self._transport.close()
        self._workers.close()

    def __enter__(self) -> Vocoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def fresh_seed() -> int:
    """A seed that nobody has used, short enough to type again."""
    return secrets.randbits(32)
