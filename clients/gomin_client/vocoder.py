"""The Python API: audio → mel → model → audio, through any transport."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gomin_client import DEFAULT_URL, audio, contract, conventions
from gomin_client.audio import Wave
from gomin_client.connection import Connection
from gomin_client.contract import SHORT_NAMES, VOCODER_KINDS, ModelContract
from gomin_client.errors import ContractError, InferenceError, SuspiciousMelError, UsageError
from gomin_client.mel import Mel, MelConfig, mel_spectrogram
from gomin_client.transports import connect
from gomin_client.transports.base import Statistics


class Vocoder:
    """One version of one model, wherever it runs; safe to use from several threads at a time.

    The version is chosen once, the newest that is ready, so that a file is never made by two. A server that goes away
    and comes back is tried again, see `Connection`; a request that was lost is sent once more.

    Attributes:
        model: the model's name on the server.
        version: the version that is called.
        contract: its mel settings and what else it says about itself.
    """

    def __init__(
        self, url: str | Sequence[str] = DEFAULT_URL, model: str = "gan", *, connection: Connection | None = None
    ) -> None:
        """Connect, and read the model's settings.

        Args:
            url: grpc://HOST:PORT, http://HOST:PORT, local:DIRECTORY, or HOST:PORT (gRPC); grpcs://, https:// with TLS;
                dns:///NAME:PORT for a name with several addresses. Several gRPC URLs share the work.
            model: "gan", "diffusion", or the name of a model.
            connection: how long to wait and to go on trying, headers, TLS files; the defaults of `Connection` if left
                out.

        Raises:
            UsageError: a malformed URL; UnknownModelError: no such model there.
            ServerError: the server cannot be reached or is not ready.
            ContractError: the model is not a GOMIN vocoder.
        """
        self.model = SHORT_NAMES.get(model, model)
        self._connection = connection or Connection()
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

    def check_seed(self, seed: int) -> None:
        """Refuse a seed that the model cannot take.

        Raises:
            UsageError: it is out of range, or the model draws no noise.
        """
        if not self.takes_seed:
            raise UsageError(f"model {self.model} draws no noise: a seed has no effect on it")
        if not 0 <= seed < 2**64:
            raise UsageError(f"seed {seed} out of range; expected 0 … 2**64 - 1")

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
        return self._mel(self._at_model_rate(wave, sample_rate))

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
        batch = np.asarray(mel, dtype=np.float32)
        batch = batch[np.newaxis] if batch.ndim == 2 else batch
        if batch.ndim != 3 or batch.shape[1] != self.contract.mel.n_mels or 0 in batch.shape:
            raise ContractError(
                f"mel has shape {np.shape(mel)}; model {self.model} takes ({self.contract.mel.n_mels}, frames)"
                + conventions.shape_hint(np.shape(mel), self.contract.mel.n_mels)
            )
        if not np.isfinite(batch).all():
            raise ContractError("mel contains NaN or infinite values")
        if not force and (suspicion := conventions.suspicion(batch)) is not None:
            raise SuspiciousMelError(f"mel {suspicion}")
        inputs: dict[str, NDArray[Any]] = {contract.MEL: batch}
        if self.takes_seed:
            seed = fresh_seed() if seed is None else seed
            self.check_seed(seed)
            inputs[contract.SEED] = np.full((len(batch), 1), seed, dtype=np.uint64)
            inputs[contract.FIRST_SAMPLE] = np.zeros((len(batch), 1), dtype=np.int64)
        elif seed is not None:
            self.check_seed(seed)
        waves = self._infer(inputs)
        expected = (len(batch), 1, self.contract.mel.hop_length * batch.shape[-1])
        if waves.shape != expected:
            raise ContractError(f"model {self.model} answered with audio of shape {waves.shape}; expected {expected}")
        if not np.isfinite(waves).all():
            raise InferenceError(f"model {self.model} answered with NaN or infinite samples")
        return waves[0, 0] if np.ndim(mel) == 2 else waves[:, 0]

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
        wave = self._at_model_rate(wave, sample_rate)
        result = self.synthesize(self._mel(wave), seed, force=True)
        return result[..., : wave.shape[-1]] if trim else result

    def _mel(self, wave: Wave) -> Mel:
        if wave.ndim == 1:
            return mel_spectrogram(wave, self.contract.mel)
        return np.stack([mel_spectrogram(channel, self.contract.mel) for channel in wave])

    def _infer(self, inputs: dict[str, NDArray[Any]]) -> Wave:
        """(B, 1, N): in as many requests as the model's largest batch makes necessary."""
        items = len(inputs[contract.MEL])
        step = self._max_batch_size or items
        seconds = inputs[contract.MEL].shape[-1] * self.contract.mel.hop_length / self.sample_rate
        deadline = self._connection.deadline(min(step, items) * seconds, self.contract.num_diffusion_steps or 1)
        parts = [
            self._transport.infer(
                self.model,
                self.version,
                {name: tensor[first : first + step] for name, tensor in inputs.items()},
                deadline,
            )[contract.AUDIO]
            for first in range(0, items, step)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _at_model_rate(self, wave: NDArray[np.floating[Any]], sample_rate: int) -> Wave:
        wave = np.asarray(wave, dtype=np.float32)
        if wave.ndim not in (1, 2) or wave.size == 0 or not np.isfinite(wave).all():
            raise UsageError(
                f"waveform of shape {wave.shape}: expected (samples,) or (channels, samples), at least one, all finite"
            )
        if sample_rate <= 0:
            raise UsageError(f"sample rate {sample_rate}: expected a positive number of Hz")
        resampled = audio.resample(wave, sample_rate, self.sample_rate)
        if not np.isfinite(resampled).all():
            raise UsageError("waveform is too loud to be resampled: it overflows")
        return resampled

    def statistics(self) -> Statistics | None:
        """What the server has counted of this model so far; None in-process."""
        return self._transport.statistics(self.model, self.version)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def __enter__(self) -> Vocoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def fresh_seed() -> int:
    """A seed that nobody has used, short enough to type again."""
    return secrets.randbits(32)
