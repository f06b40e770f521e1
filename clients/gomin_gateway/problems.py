"""Errors as problem documents (RFC 9457), in terms of HTTP; nothing of Python, of files or of addresses leaks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gomin_client.cli.console import visible
from gomin_client.errors import (
    AccessError,
    ContractError,
    DeadlineError,
    FileError,
    GominError,
    InferenceError,
    ServerError,
    SuspiciousAudioError,
    SuspiciousMelError,
    UnknownModelError,
    UsageError,
)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:gomin:problem:"
RETRY_AFTER_S = 1  # that a client waits before the next attempt, after 429 and 503

# name → status, title
KINDS: dict[str, tuple[int, str]] = {
    "bad-parameter": (400, "A parameter is wrong"),
    "bad-body": (400, "The body of the request is malformed"),
    "unauthorized": (401, "An API key is required"),
    "foreign-origin": (403, "Pages of this origin are not allowed"),
    "not-found": (404, "There is no such address"),
    "unknown-model": (404, "There is no such model"),
    "unsuitable-model": (404, "This model cannot be used here"),
    "method-not-allowed": (405, "The address does not have this method"),
    "not-acceptable": (406, "No acceptable format"),
    "slow-upload": (408, "The body of the request did not arrive in time"),
    "too-large": (413, "The body of the request is too large"),
    "too-long": (413, "The audio is too long"),
    "unreadable-file": (422, "The file cannot be read"),
    "unsuitable-input": (422, "The model does not take this input"),
    "suspicious-input": (422, "The values of the input are out of range"),
    "busy": (429, "Too many requests at a time"),
    "internal": (500, "The gateway failed"),
    "model-failed": (502, "The model failed"),
    "server-refuses": (502, "The model server refuses the gateway"),
    "server-unavailable": (503, "The model server is not available"),
    "deadline": (504, "It took too long"),
    "no-space": (507, "The gateway cannot store the request"),
}


class UnsuitableModelError(GominError):
    """A model that the server has, but that the gateway's tasks cannot use."""


# in order: the first class that fits
_OF_ERRORS: tuple[tuple[type[GominError], str], ...] = (
    (UnknownModelError, "unknown-model"),
    (UnsuitableModelError, "unsuitable-model"),
    (UsageError, "bad-parameter"),
    (SuspiciousMelError, "suspicious-input"),
    (SuspiciousAudioError, "suspicious-input"),
    (ContractError, "unsuitable-input"),
    (FileError, "unreadable-file"),
    (AccessError, "server-refuses"),
    (ServerError, "server-unavailable"),
    (DeadlineError, "deadline"),
    (InferenceError, "model-failed"),
)

# what the client's messages say in terms of Python and of its command line → HTTP
_WORDS = (
    (r'`to_gomin\(mel, "([\w-]+)"\)`', r"`mel-convention=\1`"),
    (r"`convention=…`", "`mel-convention`"),
    (r"`force=True`", "`force=true`"),
    (r"`mel\.T`", "`transpose=true`"),
    (r"`Vocoder\.analyze`", "`/v1/analyze`"),
    (r": (give it more time with )?`Connection\([^`]*\)`", ""),
    (r"(?<![\w-])--([a-z][\w-]*)", r"\1"),
)

BODY = "the body"  # name of an uploaded file in messages
SERVER = "the model server"


class ProblemError(Exception):
    """A request that the gateway does not serve.

    Attributes:
        kind: one of `KINDS`.
        detail: what is wrong, and what to do.
        headers: of the response.
    """

    def __init__(self, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = headers or {}

    @property
    def status(self) -> int:
        """The HTTP status."""
        return KINDS[self.kind][0]

    def document(self, request_id: str) -> dict[str, Any]:
        """The problem document."""
        status, title = KINDS[self.kind]
        return {
            "type": f"{TYPE_PREFIX}{self.kind}",
            "title": title,
            "status": status,
            "detail": visible(self.detail),
            "instance": f"urn:uuid:{request_id}",
        }


class GoneError(Exception):
    """The caller went away."""


def busy() -> ProblemError:
    """The refusal of a request beyond the number that is served at a time."""
    return ProblemError("busy", "the gateway serves no more requests at a time; try again later", _RETRY)


def problem_of(error: GominError, url: str, replaced: Mapping[str, str] | None = None) -> ProblemError:
    """The refusal that an error of the client becomes.

    Args:
        error: it.
        url: address of the model server, which is not shown.
        replaced: text that is not shown, such as the path of an upload → what is shown in its place.
    """
    kind = next((kind for known, kind in _OF_ERRORS if isinstance(error, known)), "internal")
    if kind == "server-unavailable":
        return ProblemError(kind, f"{SERVER} cannot be reached or is not ready; try again later", _RETRY)
    if kind == "server-refuses":
        return ProblemError(kind, f"{SERVER} does not accept the gateway's credentials")
    message = str(error).replace(url, SERVER)
    for hidden, shown in (replaced or {}).items():
        message = message.replace(hidden, shown)
    if kind == "unreadable-file" and not message.startswith(BODY):  # a file of the gateway's own
        return ProblemError("no-space", "the gateway has no room for temporary files")
    return ProblemError(kind, in_http(message))


def in_http(message: str) -> str:
    """A message of the client, for somebody who sends HTTP requests."""
    for ours, theirs in _WORDS:
        message = re.sub(ours, theirs, message)
    return message


_RETRY = {"Retry-After": str(RETRY_AFTER_S)}
INTERNAL = ProblemError("internal", "the gateway failed; its log has the details of this request")
