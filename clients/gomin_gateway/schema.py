"""The parts of the OpenAPI description that the signatures of the routes do not give."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from gomin_gateway.negotiation import BINARY, JSON_LINES, media_type
from gomin_gateway.problems import KINDS, MEDIA_TYPE, TYPE_PREFIX

DESCRIPTION = (
    "GOMIN vocoders over HTTP. Files are sent as the body of the request, as they are or as multipart/form-data. "
    "Errors are problem documents (RFC 9457). For live audio, /v1/stream is a WebSocket."
)
_BINARY = {"type": "string", "format": "binary"}
_TASK_PROBLEMS = tuple(
    kind for kind in KINDS if kind not in ("internal", "not-found", "method-not-allowed", "foreign-origin")
)


# the properties of the line of a step
_STEP = (
    "step, its number, from 1",
    "steps, their number",
    "timestep, of the denoiser",
    "audio, a file in base64 with what the step predicts for the end of the chain.",
)


class Problem(BaseModel):
    """A problem document, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str


class Version(BaseModel):
    """A version of a model, and where it comes from."""

    version: int
    checkpoint_sha256: str | None
    source: str | None
    precision: str | None
    parity: str | None


class Sampling(BaseModel):
    """The chains of a diffusion model."""

    default: dict[str, str | int | float | None]
    samplers: list[dict[str, str]]
    schedules: list[str]


class Model(BaseModel):
    """A model that makes audio: a part of what `gomin-client info --json` prints, and whether its steps can be had."""

    name: str
    kind: str
    summary: str
    versions: list[Version]
    sample_rate: int
    hop_length: int
    mel: dict[str, int | float]
    halo_frames: int
    num_diffusion_steps: int | None
    sampling: Sampling | None
    limits: dict[str, int | None]
    sends_steps: bool


class Models(BaseModel):
    """All models."""

    models: list[Model]


class Status(BaseModel):
    """A report of health."""

    status: str


def problems_of(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """The responses that are problem documents of these kinds."""
    found: dict[int | str, list[str]] = {}
    for kind in kinds:
        found.setdefault(KINDS[kind][0], []).append(kind)
    schema = Problem.model_json_schema()
    return {
        status: {
            "description": "; ".join(f"{TYPE_PREFIX}{kind}: {KINDS[kind][1]}" for kind in same),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status, same in found.items()
    }


def file_body(description: str) -> dict[str, Any]:
    """A body that is a file."""
    form = {"type": "object", "properties": {"file": _BINARY}, "required": ["file"]}
    content = {BINARY: {"schema": _BINARY}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "description": description, "content": content}}


def audio_responses() -> dict[int | str, dict[str, Any]]:
    """The responses of a request for audio."""
    types = [*(media_type(name) for name in ("wav", "flac", "mp3", "ogg")), BINARY]
    return _file_responses("The audio.", types, ("Gomin-Model", "Gomin-Seed", "Gomin-Sampling", "Gomin-Warning"))


def steps_responses() -> dict[int | str, dict[str, Any]]:
    """The responses of a request for the steps of a chain."""
    types, headers = [JSON_LINES], ("Gomin-Model", "Gomin-Seed", "Gomin-Sampling", "Gomin-Warning")
    described = "A line of JSON for each step: " + ", ".join(_STEP)
    answers = _file_responses(described, types, headers)
    answers[200]["content"] = {JSON_LINES: {"schema": {"type": "string"}}}
    return answers


def mel_responses() -> dict[int | str, dict[str, Any]]:
    """The responses of a request for a mel."""
    return _file_responses("The mel file.", [BINARY], ("Gomin-Model", "Gomin-Warning"))


def text_responses() -> dict[int | str, dict[str, Any]]:
    """The responses of a request for the counters."""
    answer = {"description": "The counters.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {200: answer, **problems_of("unauthorized")}


def _file_responses(description: str, types: list[str], headers: tuple[str, ...]) -> dict[int | str, dict[str, Any]]:
    answer = {
        "description": description,
        "content": {name: {"schema": _BINARY} for name in types},
        "headers": {name: {"schema": {"type": "string"}} for name in headers},
    }
    return {200: answer, **problems_of(*_TASK_PROBLEMS)}
