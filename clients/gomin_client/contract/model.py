"""The contract between a model repository and its clients: names of models, tensors and config parameters, once.

A model's `config.pbtxt` has `gomin.*` parameters with everything that a client must know. The ONNX file repeats them as
metadata. Both are read through `ModelContract`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from gomin_client.errors import ContractError
from gomin_client.mel.features import MelConfig

# Names of models in a repository, and short names for users.
MEL_MODEL = "gomin_mel"
GAN_MODEL = "gomin_gan"
DENOISER_MODEL = "gomin_denoiser"
DIFFUSION_MODEL = "gomin_diffusion"
DIFFUSION_STREAM_MODEL = "gomin_diffusion_stream"
RECONSTRUCT_MODEL = "gomin_reconstruct"
RECONSTRUCT_DIFFUSION_MODEL = "gomin_reconstruct_diffusion"
SHORT_NAMES = {"gan": GAN_MODEL, "diffusion": DIFFUSION_MODEL}

# Kinds: inputs and outputs of a model.
GAN = "gan"  # mel -> audio
DENOISER = "denoiser"  # signal, timestep, mel -> noise
DIFFUSION = "diffusion"  # mel, seed, first_sample -> audio
DIFFUSION_STREAM = "diffusion_stream"  # the same -> audio, step, steps: an answer after each step
FRONT_END = "mel"  # audio -> mel
RECONSTRUCT = "reconstruct"  # audio -> reconstruction
RECONSTRUCT_DIFFUSION = "reconstruct_diffusion"  # audio, seed -> reconstruction
KINDS = (GAN, DENOISER, DIFFUSION, DIFFUSION_STREAM, FRONT_END, RECONSTRUCT, RECONSTRUCT_DIFFUSION)
VOCODER_KINDS = (GAN, DIFFUSION)
CHAIN_KINDS = (DIFFUSION, DIFFUSION_STREAM)
ENSEMBLE_KINDS = (RECONSTRUCT, RECONSTRUCT_DIFFUSION)
_KINDS_WITH_STEPS = (DENOISER, *CHAIN_KINDS, RECONSTRUCT_DIFFUSION)

# Number formats that a model may compute in; its inputs and outputs are float32 in both cases.
FP32 = "fp32"
FP16 = "fp16"
PRECISIONS = (FP32, FP16)

# Tensors. B batch, M mel bands, T frames, N = hop_length·T samples.
MEL = "mel"  # (B, M, T) float32
AUDIO = "audio"  # (B, 1, N) float32; the input of a front end and of an ensemble has any number of samples
RECONSTRUCTION = "reconstruction"  # (B, 1, N) float32; the tensors of an ensemble cannot share a name
SEED = "seed"  # (B, 1) uint64
FIRST_SAMPLE = "first_sample"  # (B, 1) int64: absolute index of the item's first sample in the noise field
SIGNAL = "signal"  # (B, 1, N) float32
TIMESTEP = "timestep"  # (B, 1) float32
NOISE = "noise"  # (B, 1, N) float32
STEP = "step"  # (B, 1) int32: number of the step after which an answer was sent, from 1
STEPS = "steps"  # (B, 1) int32: number of steps of the chain

# kind -> its output
OUTPUTS = {
    GAN: AUDIO,
    DENOISER: NOISE,
    DIFFUSION: AUDIO,
    DIFFUSION_STREAM: AUDIO,
    FRONT_END: MEL,
    RECONSTRUCT: RECONSTRUCTION,
    RECONSTRUCT_DIFFUSION: RECONSTRUCTION,
}

PARAMETER_PREFIX = "gomin."

_LARGEST = 2**20  # of a number in a contract: a broken or malicious server must not cost all memory
MAX_FRAMES = PARAMETER_PREFIX + "max_frames"


@dataclass(frozen=True)
class Provenance:
    """The origin of one version of a model; each value is a config parameter gomin.NAME.VERSION.

    Attributes:
        checkpoint_sha256: SHA-256 of the exported checkpoint file; "" for a mel front end, which is made of none.
        precision: one of `PRECISIONS`.
        parity: summary of the parity gate's report.
        source: origin of the checkpoint, a file name or hf://USER/REPOSITORY@COMMIT/FILE; "" if not recorded.
        operators: operators of our own library that the version needs, such as "gomin 1"; "" if it needs none.
        operators_sha256: SHA-256 of the library that the parity gate ran it with; "" if it needs none.
    """

    checkpoint_sha256: str
    precision: str = FP32
    parity: str = "not recorded"
    source: str = ""
    operators: str = ""
    operators_sha256: str = ""

    def to_parameters(self, version: int) -> dict[str, str]:
        """The provenance as config parameters of a model version; empty ones are left out."""
        values = {f"{PARAMETER_PREFIX}{item.name}.{version}": getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if value}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> dict[int, Provenance]:
        """Model version → its provenance; versions without a recorded precision are skipped."""
        values: dict[int, dict[str, str]] = {}
        for name, value in parameters.items():
            if match := PROVENANCE_PARAMETER.fullmatch(name):
                values.setdefault(int(match[2]), {})[match[1]] = value
        return {
            version: cls(**{"checkpoint_sha256": "", **found})
            for version, found in values.items()
            if found.keys() & {"checkpoint_sha256", "precision"}
        }


PROVENANCE_PARAMETER = re.compile(rf"gomin\.({'|'.join(item.name for item in fields(Provenance))})\.([1-9]\d*)")


@dataclass(frozen=True)
class ModelContract:
    """The settings that a model declares to its clients.

    Attributes:
        kind: one of `KINDS`.
        mel: the mel spectrograms that the model takes.
        halo_frames: number of mel frames to either side that an output sample of one call depends on; for a diffusion
            model the halo of one denoiser step.
        num_diffusion_steps: timesteps that the denoiser was trained with; None for a GAN.
        max_frames: largest number of mel frames in one request, of all its items together; None if there is no bound.
            A setting of the deployment: it is in config.pbtxt, but not in the ONNX file.
        provenance: model version → its origin.
    """

    kind: str
    mel: MelConfig
    halo_frames: int
    num_diffusion_steps: int | None = None
    max_frames: int | None = None
    provenance: Mapping[int, Provenance] = field(default_factory=dict)

    def check_kind(self, model: str) -> None:
        """Refuse a model that does not make audio from a mel in one answer.

        Args:
            model: its name, for messages.

        Raises:
            ContractError: says what the model does, and which to choose.
        """
        if self.kind in ENSEMBLE_KINDS:
            vocoder = "gan" if self.kind == RECONSTRUCT else "diffusion"
            raise ContractError(
                f"model {model} takes audio and computes the mel on the Triton server. It is for programs that send "
                "audio to Triton themselves. A model that takes a mel is needed here, because the mel is computed "
                f"before: choose {vocoder}"
            )
        if self.kind == DIFFUSION_STREAM:
            raise ContractError(
                f"model {model} sends several answers: choose diffusion, and `Vocoder.synthesize_steps` calls it"
            )
        if self.kind not in VOCODER_KINDS:
            raise ContractError(
                f"model {model} is of kind {self.kind}: it does not make audio from a mel; models that do are of kind "
                f"{' or '.join(VOCODER_KINDS)}"
            )

    def check_mel(self, model: str, given: MelConfig) -> None:
        """Refuse a mel with settings that differ from the model's.

        Args:
            model: its name, for messages.
            given: the settings of the mel.

        Raises:
            ContractError: names the first setting that differs, and both values.
        """
        for name, wanted in self.mel.__dict__.items():
            if getattr(given, name) != wanted:
                raise ContractError(
                    f"the mel has {name} {getattr(given, name)}, model {model} takes {wanted}: "
                    "make the mel with the model's settings, or choose a model that was trained on such mels"
                )

    def check_frames(self, model: str, items: int, frames: int) -> None:
        """Refuse a request that is longer than the model takes.

        Args:
            model: its name, for messages.
            items: number of mels in the request.
            frames: number of frames of each.

        Raises:
            ContractError: names the bound.
        """
        if self.max_frames is not None and items * frames > self.max_frames:
            raise ContractError(
                f"model {model} takes at most {self.max_frames} frames in one request, this one has {items} × "
                f"{frames}: send windows of it, or raise {MAX_FRAMES} in config.pbtxt"
            )

    def same_model(self, other: ModelContract, version: int) -> bool:
        """Whether a version of this model and of another one declare the same settings and origin."""
        mine, its = (replace(contract, max_frames=None, provenance={}) for contract in (self, other))
        return mine == its and self.provenance.get(version) == other.provenance.get(version)

    def to_parameters(self) -> dict[str, str]:
        """The contract as config parameters, without those of single versions and of the deployment."""
        parameters = {
            "kind": self.kind,
            "sample_rate": self.mel.sample_rate,
            "n_fft": self.mel.n_fft,
            "win_length": self.mel.win_length,
            "hop_length": self.mel.hop_length,
            "n_mels": self.mel.n_mels,
            "f_min": self.mel.f_min,
            "f_max": self.mel.f_max,
            "halo_frames": self.halo_frames,
        }
        if self.num_diffusion_steps is not None:
            parameters["num_diffusion_steps"] = self.num_diffusion_steps
        return {PARAMETER_PREFIX + name: str(value) for name, value in parameters.items()}

    @classmethod
    def from_parameters(cls, model: str, parameters: Mapping[str, str]) -> ModelContract:
        """Read the contract of a model from its config parameters.

        Args:
            model: its name, for messages.
            parameters: all its parameters; others than GOMIN's are ignored.

        Raises:
            ContractError: a parameter is missing or malformed, or requires mels that this client cannot compute.
        """
        if PARAMETER_PREFIX + "kind" not in parameters:
            raise ContractError(
                f"model {model} is not a GOMIN model: its config.pbtxt has no parameter {PARAMETER_PREFIX}kind; "
                "models written by gomin-export have it"
            )
        kind = parameters[PARAMETER_PREFIX + "kind"]
        if kind not in KINDS:
            raise ContractError(f"model {model} is of kind {kind!r}; this client knows {', '.join(KINDS)}")

        def number(name: str, most: int = _LARGEST) -> int:
            text = parameters.get(PARAMETER_PREFIX + name)
            try:
                value = int(text)  # type: ignore[arg-type]
            except (TypeError, ValueError):
                raise ContractError(
                    f"model {model}: config parameter {PARAMETER_PREFIX}{name} is "
                    f"{'missing' if text is None else repr(text[:40])}; expected a whole number"
                ) from None
            if not 0 <= value <= most:
                raise ContractError(
                    f"model {model}: config parameter {PARAMETER_PREFIX}{name} is {value}; expected 0 to {most}"
                )
            return value

        settings = [number(name) for name in ("sample_rate", "win_length", "hop_length", "n_mels")]
        try:
            mel = MelConfig(*settings)
        except ValueError as error:
            raise ContractError(f"model {model}: config parameter {PARAMETER_PREFIX}{error}") from error
        max_frames = number("max_frames", most=2**62) if MAX_FRAMES in parameters else None
        if max_frames is not None and max_frames < 1:
            raise ContractError(f"model {model}: config parameter {MAX_FRAMES} is {max_frames}; expected at least 1")
        contract = cls(
            kind=kind,
            mel=mel,
            halo_frames=number("halo_frames"),
            num_diffusion_steps=number("num_diffusion_steps") if kind in _KINDS_WITH_STEPS else None,
            max_frames=max_frames,
            provenance=Provenance.from_parameters(parameters),
        )
        for name, derived in contract.to_parameters().items():
            if parameters.get(name) != derived:
                raise ContractError(
                    f"model {model}: config parameter {name} is {parameters.get(name)!r}, but this client's mels for "
                    f"its other settings have {derived}"
                )
        return contract
