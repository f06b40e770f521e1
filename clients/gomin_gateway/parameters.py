"""The parameters of requests: the names, values and messages of `gomin-client`'s options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gomin_client.contract.choices import SAMPLERS, SCHEDULES
from gomin_client.errors import UsageError
from gomin_client.files import formats
from gomin_client.mel.scales import CONVENTIONS, MelReading
from gomin_client.sampling.registry import one_of
from gomin_client.sampling.settings import SamplerSettings

LONGEST_WINDOW = 1 << 16  # frames; of models without a bound of their own


class Parameters(BaseModel):
    """What all requests have: a model."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)

    model: str = Field("gan", description="gan, diffusion, or a model's name.", max_length=200)
    version: int | None = Field(None, ge=1, le=2**63 - 1, description="Default: the newest version that is ready.")


class ChainParameters(Parameters):
    """The sampling chain of a diffusion model, its noise, and what inputs it takes; see `Vocoder`."""

    sampler: str | None = Field(None, description=f"Of a diffusion model: {SAMPLERS}.", max_length=50)
    steps: int | None = Field(None, ge=1, le=10_000, description="Denoiser steps, of samplers that take any number.")
    schedule: str | None = Field(None, description=f"Noise schedule: {', '.join(SCHEDULES)}.", max_length=50)
    eta: float | None = Field(None, description="Share of fresh noise in each ddim step, 0 to 1.")
    timesteps: str | None = Field(
        None, description="The timestep of each denoiser step, such as 49,30,12,0.", max_length=5000
    )
    seed: int | None = Field(
        None, ge=0, le=2**64 - 1, description="Seed of a diffusion model's noise. Default: a fresh one."
    )
    force: bool = Field(False, description="Accept values that are out of range.")

    def sampling(self) -> SamplerSettings:
        """The sampling chain.

        Raises:
            UsageError: malformed timesteps.
        """
        try:
            return SamplerSettings(self.sampler, self.steps, self.schedule, self.eta, self.timesteps)
        except ValueError as error:
            raise UsageError(str(error)) from error


class VocodingParameters(ChainParameters):
    """How a model makes audio; see `Vocoder`."""

    window: int | None = Field(None, ge=1, le=LONGEST_WINDOW, description="Mel frames per request to the model server.")


class MelReadingParameters(BaseModel):
    """How mels are read; see `MelReading`."""

    mel_convention: str = Field(
        "gomin", alias="mel-convention", description=f"Scale of the mel: {', '.join(CONVENTIONS)}.", max_length=50
    )
    stft_norm: Literal["window", "none"] = Field("window", alias="stft-norm", description="See gomin-client.")

    def reading(self, *, transpose: bool) -> MelReading:
        """How the mel is read.

        Raises:
            UsageError: an unknown convention.
        """
        return MelReading(self.mel_convention, self.stft_norm == "window", transpose)


class MelFileParameters(MelReadingParameters):
    """How an uploaded mel file is read."""

    transpose: bool = Field(False, description="The mel is (frames, bands).")


class ChannelParameters(BaseModel):
    """Which channels of a recording are taken."""

    channels: Literal["mono", "all"] = Field("mono", description="Mix all channels down to one, or keep every channel.")


class TrimParameters(BaseModel):
    """How long the audio of a recording is."""

    trim: bool = Field(True, description="Cut the result to the recording's length, or keep whole frames.")


class EncodingParameters(BaseModel):
    """The file format of the audio of an answer."""

    format: str | None = Field(
        None, description=f"{', '.join(formats.names(formats.AUDIO))}. Default: by the header Accept.", max_length=20
    )
    subtype: str | None = Field(None, description=f"Encoding: {formats.subtypes_help()}.", max_length=20)


class FormParameters(EncodingParameters):
    """The form of the audio of an answer."""

    stream: bool = Field(False, description="Answer while the audio is being computed, as wav or raw samples.")


class AudioParameters(FormParameters, VocodingParameters):
    """The audio of an answer, which a model makes."""


class ResampleParameters(FormParameters, ChannelParameters, Parameters):
    """Parameters of /v1/resample."""

    force: bool = Field(False, description="Accept audio far beyond full scale.")


class ReconstructParameters(AudioParameters, ChannelParameters, TrimParameters):
    """Parameters of /v1/reconstruct."""


class SynthesizeParameters(AudioParameters, MelFileParameters):
    """Parameters of /v1/synthesize."""


class StepParameters(EncodingParameters, ChainParameters):
    """The steps of a chain, each with its audio."""

    model: str = Field("diffusion", description="diffusion, or the name of a diffusion model.", max_length=200)
    format: str | None = Field(
        None, description=f"Of each step: {', '.join(formats.names(formats.AUDIO))}. Default: wav.", max_length=20
    )


class ReconstructStepsParameters(StepParameters, ChannelParameters, TrimParameters):
    """Parameters of /v1/reconstruct/steps."""


class SynthesizeStepsParameters(StepParameters, MelFileParameters):
    """Parameters of /v1/synthesize/steps."""


class AnalyzeParameters(ChannelParameters, Parameters):
    """Parameters of /v1/analyze."""

    format: Literal["npy", "npz"] = Field("npy", description="npz has the settings of the mel, too.")
    force: bool = Field(False, description="Accept audio far beyond full scale.")


_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a text",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "greater_than": "more than {gt}",
    "less_than": "less than {lt}",
    "string_too_long": "at most {max_length} characters",
    "literal_error": "{expected}",
}


def message_of(errors: Sequence[Mapping[str, Any]], known: Sequence[str]) -> str:
    """What is wrong with parameters, in the words of the client.

    Args:
        errors: pydantic's.
        known: names of the parameters.
    """
    sentences = []
    for error in errors:
        if not error["loc"]:
            return "expected an object"
        name = str(error["loc"][-1])[:50]
        given = str(error.get("input"))[:50]
        if error["type"] == "extra_forbidden":
            sentences.append(f"unknown parameter {name}: expected {one_of(sorted(known))}")
        elif error["type"] == "missing":
            sentences.append(f"{name} is missing")
        else:
            expected = _EXPECTED.get(error["type"], "another value").format(**error.get("ctx", {}))
            sentences.append(f"{name} {given!r}: expected {expected.replace(chr(39), '')}")
    return "; ".join(sentences)


def names_of(parameters: type[BaseModel]) -> list[str]:
    """The names of parameters, as they are given."""
    return [known.alias or name for name, known in parameters.model_fields.items()]
