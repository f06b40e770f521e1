"""The Python API: audio → mel → model → audio, through any transport."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from gomin_client import DEFAULT_URL
from gomin_client.errors import UsageError
from gomin_client.inference.checks import checked_rate, checked_wave, checked_waves
from gomin_client.inference.steps import SteppedModel
from gomin_client.mel.features import Mel, MelBatch, MelConfig, Wave
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.transports.base import Transport
from gomin_client.transports.connection import Connection
from gomin_client.transports.registry import Location, connect

# Recordings are (samples,) or (channels, samples), mels (n_mels, frames) or (batch, n_mels, frames): arrays of numpy,
# torch or another library, see `inference.checks.as_floats`.
ArrayLike = Any


class Chain(TypedDict, total=False):
    """The sampling chain of a diffusion model, in single arguments; see `SamplerSettings`."""

    sampler: str | None
    steps: int | None
    schedule: str | None
    eta: float | None
    timesteps: str | None


class Vocoder(SteppedModel):
    """One version of one model, wherever it runs; safe to use from several threads at a time.

    A server that goes away and comes back is tried again, see `Connection`; a request that was lost is sent once more.
    Every method may raise `InferenceError` and `ServerError`, see `Transport.infer`, and `UsageError` for arguments
    that are not arrays, or for a seed that the model does not take.
    """

    def __init__(
        self,
        url: Location | Sequence[Location] | Transport = DEFAULT_URL,
        model: str = "gan",
        *,
        connection: Connection | None = None,
        window: int | None = None,
        in_flight: int = 2,
        sampling: SamplerSettings | None = None,
        version: int | None = None,
        **chain: Unpack[Chain],
    ) -> None:
        """Connect, and read the model's description.

        Args:
            url: grpc://HOST:PORT, http://HOST:PORT, local:DIRECTORY, or HOST:PORT (gRPC); grpcs://, https:// with TLS;
                dns:///NAME:PORT for a name with several addresses. Several gRPC URLs share the work. A path is the
                directory of a model repository. Or a transport.
            model: "gan", "diffusion", or the name of a model.
            connection: time limits, headers, TLS files; the defaults of `Connection` if left out.
            window: number of mel frames in one request; a default for the model's halo if left out.
            in_flight: maximum number of windows of one mel in flight.
            sampling: sampling chain of a diffusion model; the model's default for what is not chosen.
            version: version of the model; the newest that is ready if left out.
            chain: the sampling chain in single arguments: sampler, steps, schedule, eta, timesteps.

        Raises:
            UsageError: a malformed URL, a window that consists of halos, a chain that makes no sense;
                `UnknownModelError`: there is no such model or version.
            ServerError: the server cannot be reached or is not ready.
            ContractError: the model is not a GOMIN vocoder.
        """
        settings = _settings(sampling, chain)
        transport = connect(url, connection)
        super().__init__(transport, model, settings, connection or Connection(), window, in_flight, version)

    def analyze(
        self, wave: ArrayLike, sample_rate: float, *, channels_last: bool = False, force: bool = False
    ) -> Mel | MelBatch:
        """The mel spectrogram of a recording: (n_mels, frames) or (channels, n_mels, frames) float32.

        Args:
            wave: (samples,) or (channels, samples) waveform, full scale ±1.
            sample_rate: sample rate of the waveform, in Hz; it is converted to the model's.
            channels_last: the waveform is (samples, channels).
            force: take samples far beyond full scale.

        Raises:
            SuspiciousAudioError: samples far beyond full scale.
        """
        checked = checked_wave(wave, channels_last=channels_last, force=force)
        return _joined(self.analyzed([np.atleast_2d(checked)], checked_rate(sample_rate)), like=checked, ndim=1)

    def synthesize(
        self, mel: ArrayLike, seed: int | None = None, *, mel_config: MelConfig | None = None, force: bool = False
    ) -> Wave:
        """Audio of a mel spectrogram: (hop_length · frames,) float32, or (batch, hop_length · frames).

        Args:
            mel: (n_mels, frames), or (batch, n_mels, frames).
            seed: seed of a diffusion model's noise, the same for all items; a fresh one if left out.
            mel_config: the settings that the mel was made with, if they are known: they must be the model's.
            force: take values that cannot come from a recording; `to_gomin` converts other mels.

        Raises:
            ContractError: a mel of another shape or other settings, or not finite; `SuspiciousMelError`: a mel that
                does not look like one of GOMIN's.
        """
        checked = self.checked_mel(mel, mel_config, force=force)
        items = checked[np.newaxis] if checked.ndim == 2 else checked
        return _joined(self.vocoded([items], seed), like=checked, ndim=2)

    def stream(
        self,
        mels: Iterable[ArrayLike],
        seed: int | None = None,
        *,
        first_window: int | None = None,
        force: bool = False,
    ) -> Generator[Wave]:
        """Audio of a mel spectrogram that arrives block by block, as soon as it is made.

        It lags behind the mel by `chain_halo_frames` and the rest of a window: for live input choose a small `window`.
        The mel is read in a separate thread, no faster than audio is taken; its end flushes the rest. Concatenated, the
        audio equals that of the whole mel (within 1e-5; for a diffusion model 1e-4), for any blocks and windows.

        Args:
            mels: (n_mels, any number of frames) each, or (batch, n_mels, frames).
            seed: see `synthesize`.
            first_window: number of frames of the first window, more than `chain_halo_frames`, so that audio comes soon;
                the next ones double in size up to `window`. By default all have one size, which servers can batch.
            force: see `synthesize`; in a stream only values out of range are refused; the mean is not checked.

        Yields:
            (samples,) float32 each, or (batch, samples): whole frames, hop_length samples each.

        Raises:
            ContractError: see `synthesize`; audio before an error has been yielded.
        """
        blocks = self.checked_blocks(mels, in_part=not force)
        return blocks.restored(self.vocoded(blocks, seed, first_window))

    def reconstruct(
        self,
        wave: ArrayLike,
        sample_rate: float,
        *,
        trim: bool = True,
        seed: int | None = None,
        channels_last: bool = False,
        force: bool = False,
    ) -> Wave:
        """A recording turned into a mel spectrogram and back: float32, shaped like it, at the model's sample rate.

        Args:
            wave: see `analyze`.
            sample_rate: see `analyze`.
            trim: cut the result to the length of the recording; GOMIN's program leaves up to one hop more.
            seed: see `synthesize`.
            channels_last: the waveform is (samples, channels), and the result too.
            force: see `analyze`, also for errors.
        """
        checked = checked_wave(wave, channels_last=channels_last, force=force)
        parts = self.reconstructed([np.atleast_2d(checked)], checked_rate(sample_rate), trim=trim, seed=seed)
        made = _joined(parts, like=checked, ndim=1)
        return made.T if channels_last else made

    def reconstruct_stream(
        self,
        waves: Iterable[ArrayLike],
        sample_rate: float,
        *,
        trim: bool = True,
        seed: int | None = None,
        first_window: int | None = None,
        channels_last: bool = False,
        force: bool = False,
    ) -> Generator[Wave]:
        """`reconstruct` for a recording that arrives block by block, as soon as it is made; see `stream`.

        Blocks are (any number of samples,) each, or (channels, samples). Other arguments and errors are those of
        `reconstruct`, and `first_window` of `stream`. Audio before an error has been yielded.

        Yields:
            (samples,) float32 each, or (channels, samples), at the model's sample rate.
        """
        blocks = checked_waves(waves, channels_last=channels_last, force=force)
        rate = checked_rate(sample_rate)
        return blocks.restored(self.reconstructed(blocks, rate, trim=trim, seed=seed, first_window=first_window))


def _joined(parts: Iterable[NDArray[np.float32]], like: NDArray[np.float32], ndim: int) -> NDArray[np.float32]:
    """The whole of a result; without its axis of rows if what it was made from, of `ndim` axes, has none."""
    whole = np.concatenate(list(parts), axis=-1)
    return whole[0] if like.ndim == ndim else whole


def _settings(sampling: SamplerSettings | None, chain: Chain) -> SamplerSettings:
    """The sampling chain, from either form.

    Raises:
        UsageError: both forms at once, or a value of the wrong type.
    """
    if sampling is not None and chain:
        raise UsageError(f"sampling and {', '.join(chain)}: the chain is given in one form, not in both")
    if not isinstance(sampling, SamplerSettings | None):
        raise UsageError(f"sampling {sampling!r}: expected a `SamplerSettings`")
    try:
        return sampling or SamplerSettings(**chain)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
