"""The signature of every kind of model: its tensors, with axes, units and meaning, once.

The export writes them into config.pbtxt and checks ONNX files against them; clients describe models with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gomin_client.contract import model as contract
from gomin_client.contract.model import ModelContract

BATCH = "batch"  # the first axis of every tensor
BANDS = "bands"
FRAMES = "frames"
SAMPLES = "samples"
RECONSTRUCTED_SAMPLES = "reconstructed_samples"  # of an ensemble, which makes whole frames
CHANNEL = "channel"  # always one: the channels of a recording are items of a batch
VALUE = "value"  # always one: one number for each item


@dataclass(frozen=True)
class Tensor:
    """A tensor of a model.

    Attributes:
        name: its name.
        datatype: Triton's name of its dtype.
        axes: names of its axes after the batch axis.
        unit: of its values. Here and in `meaning`, {NAME} stands for a setting of the model; see `words`.
        meaning: what it is.
        example: every element of this input in an example request.
        is_optional: whether a request may leave it out.
    """

    name: str
    datatype: str
    axes: tuple[str, ...]
    unit: str
    meaning: str
    example: float = 0
    is_optional: bool = False

    def sizes(self, described: ModelContract, frames: int | None = None) -> list[int | None]:
        """Sizes of its axes after the batch axis.

        Args:
            described: the model's contract.
            frames: mel frames of a request; None leaves the axes that depend on it None.
        """
        known: dict[str, int | None] = {
            BANDS: described.mel.n_mels,
            FRAMES: frames,
            SAMPLES: None if frames is None else described.mel.hop_length * frames,
            RECONSTRUCTED_SAMPLES: None,
            CHANNEL: 1,
            VALUE: 1,
        }
        return [known[axis] for axis in self.axes]

    def shape(self, described: ModelContract) -> list[int]:
        """Sizes of all axes, the batch axis first; -1 where a request chooses the size."""
        return [-1, *(-1 if size is None else size for size in self.sizes(described))]

    def layout(self, described: ModelContract) -> str:
        """Its axes in words: "(batch, 128, frames)"."""
        sizes = zip(self.axes, self.sizes(described), strict=True)
        return f"({', '.join([BATCH, *(axis if size is None else str(size) for axis, size in sizes)])})"

    def words(self, described: ModelContract) -> tuple[str, str]:
        """`unit` and `meaning` for a model with these settings."""
        mel = described.mel
        settings = {
            "sample_rate": mel.sample_rate,
            "hop_length": mel.hop_length,
            "n_mels": mel.n_mels,
            "f_min": f"{mel.f_min:g}",
            "f_max": f"{mel.f_max:g}",
            "last_timestep": (described.num_diffusion_steps or 1) - 1,
        }
        return self.unit.format(**settings), self.meaning.format(**settings)


@dataclass(frozen=True)
class Signature:
    """The tensors of a kind of model.

    Attributes:
        summary: what the model does, in a few words.
        inputs: what a request holds.
        outputs: what the answer holds.
    """

    summary: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, the inputs first."""
        return self.inputs + self.outputs


_MEL = Tensor(
    contract.MEL,
    "FP32",
    (BANDS, FRAMES),
    "GOMIN's scale, 0 is -100 dB or less, 1 is 0 dB",
    "mel spectrogram of {n_mels} bands from {f_min} to {f_max} Hz, a frame every {hop_length} samples at "
    "{sample_rate} Hz",
    example=0.5,
)
_AUDIO = Tensor(
    contract.AUDIO,
    "FP32",
    (CHANNEL, SAMPLES),
    "1 is full scale",
    "waveform at {sample_rate} Hz, {hop_length} samples for each frame",
)
_SEED = Tensor(
    contract.SEED,
    "UINT64",
    (VALUE,),
    "none, 0 to 2^64 - 1",
    "determines the noise: the same seed gives the same waveform",
)
_FIRST_SAMPLE = Tensor(
    contract.FIRST_SAMPLE,
    "INT64",
    (VALUE,),
    "samples at {sample_rate} Hz",
    "index of the item's first sample, if its mel is a window of a longer one; 0 if left out",
    is_optional=True,
)
_SIGNAL = Tensor(
    contract.SIGNAL,
    "FP32",
    (CHANNEL, SAMPLES),
    "1 is full scale; the noise in it has a variance of at most 1",
    "waveform with noise at {sample_rate} Hz, {hop_length} samples for each frame",
)
_TIMESTEP = Tensor(
    contract.TIMESTEP,
    "FP32",
    (VALUE,),
    "timesteps, 0 (least noise) to {last_timestep} (most noise), fractions too",
    "how much noise the signal contains",
)
_NOISE = Tensor(
    contract.NOISE, "FP32", (CHANNEL, SAMPLES), "standard deviations", "predicted noise in the signal, of unit variance"
)
_PREDICTED = replace(
    _AUDIO, meaning=_AUDIO.meaning + "; after a step but the last, what the step predicts for the end of the chain"
)
_STEP = Tensor(contract.STEP, "INT32", (VALUE,), "none, from 1", "number of the step after which this answer was sent")
_STEPS = Tensor(contract.STEPS, "INT32", (VALUE,), "none", "number of steps of the chain")
_TIMESTEP_OF_STEP = replace(_TIMESTEP, meaning="how much noise the signal contained before the step")

_RECORDING = Tensor(
    contract.AUDIO,
    "FP32",
    (CHANNEL, SAMPLES),
    "1 is full scale",
    "waveform at {sample_rate} Hz, of one sample or more",
    example=0.1,
)
_MEL_OF_RECORDING = replace(_MEL, meaning=_MEL.meaning + "; 1 + samples // {hop_length} frames")
_RECONSTRUCTION = Tensor(
    contract.RECONSTRUCTION,
    "FP32",
    (CHANNEL, RECONSTRUCTED_SAMPLES),
    "1 is full scale",
    "waveform at {sample_rate} Hz of {hop_length} * (1 + samples // {hop_length}) samples, up to {hop_length} more "
    "than the input: the caller drops them",
)

SIGNATURES: Mapping[str, Signature] = {
    contract.GAN: Signature("mel spectrogram to waveform, in one pass", (_MEL,), (_AUDIO,)),
    contract.DENOISER: Signature(
        "one denoiser step of a diffusion model, which gomin_diffusion calls", (_SIGNAL, _TIMESTEP, _MEL), (_NOISE,)
    ),
    contract.DIFFUSION: Signature(
        "mel spectrogram to waveform, by a chain of denoiser steps", (_MEL, _SEED, _FIRST_SAMPLE), (_AUDIO,)
    ),
    contract.DIFFUSION_STREAM: Signature(
        "mel spectrogram to waveform, by a chain of denoiser steps, with an answer after each",
        (_MEL, _SEED, _FIRST_SAMPLE),
        (_PREDICTED, _STEP, _STEPS, _TIMESTEP_OF_STEP),
    ),
    contract.FRONT_END: Signature("waveform to mel spectrogram", (_RECORDING,), (_MEL_OF_RECORDING,)),
    contract.RECONSTRUCT: Signature(
        "waveform to mel spectrogram and back, in one pass", (_RECORDING,), (_RECONSTRUCTION,)
    ),
    contract.RECONSTRUCT_DIFFUSION: Signature(
        "waveform to mel spectrogram and back, by a chain of denoiser steps", (_RECORDING, _SEED), (_RECONSTRUCTION,)
    ),
}
