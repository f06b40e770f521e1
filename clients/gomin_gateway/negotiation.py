"""The format of an answer: by the parameter `format`, or by the header Accept (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from dataclasses import dataclass

from gomin_client.files import formats, streams
from gomin_client.files.formats import AUDIO, Format
from gomin_gateway.problems import ProblemError

# in order of preference; the first of each is sent
_MEDIA_TYPES = {
    "wav": ("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"),
    "flac": ("audio/flac", "audio/x-flac"),
    "mp3": ("audio/mpeg", "audio/mp3"),
    "ogg": ("audio/ogg", "application/ogg"),
}
BINARY = "application/octet-stream"
JSON_LINES = "application/x-ndjson"


@dataclass(frozen=True)
class Representation:
    """The form that audio is sent in.

    Attributes:
        format: an audio format.
        subtype: one of its subtypes; None for its first.
        streamed: whether it is sent while it is being computed.
    """

    format: Format
    subtype: str | None
    streamed: bool

    @property
    def media_type(self) -> str:
        """The content type."""
        return media_type(self.format.name)


def media_type(name: str) -> str:
    """The content type of an audio format."""
    return _MEDIA_TYPES.get(name, (BINARY,))[0]


def choose(name: str | None, subtype: str | None, accept: str, *, streamed: bool) -> Representation:
    """The form to send audio in.

    Args:
        name: of a format; None to go by `accept`.
        subtype: see `Representation`.
        accept: the header; empty if there is none.
        streamed: see `Representation`.

    Raises:
        UsageError: no such format or subtype, or one that cannot be streamed.
        ProblemError: nothing that is acceptable can be sent.
    """
    chosen = formats.named(name or _accepted(accept, streamed=streamed), AUDIO, stream=streamed)
    if streamed:
        streams.check_subtype(chosen.extension, subtype)
    else:
        chosen.check_subtype(subtype)
    return Representation(chosen, subtype, streamed)


def _accepted(accept: str, *, streamed: bool) -> str:
    """The name of the format with the highest weight; of several, the first in our order."""
    possible = [name for name in _MEDIA_TYPES if name in formats.names(AUDIO, stream=streamed)]
    ranges = _parsed(accept or "*/*")
    weights = {name: max(_weight(known, ranges) for known in _MEDIA_TYPES[name]) for name in possible}
    best = max(possible, key=lambda name: weights[name])
    if weights[best] == 0:
        offered = ", ".join(media_type(name) for name in possible)
        raise ProblemError(
            "not-acceptable", f"Accept: {accept[:200]}: expected one of {offered}, or the parameter format"
        )
    return best


def _parsed(accept: str) -> dict[str, float]:
    """Media range → its weight, from 0 to 1; malformed ones are left out."""
    ranges: dict[str, float] = {}
    for item in accept.split(",")[:50]:
        name, *parameters = (word.strip().lower() for word in item.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = min(1.0, max(0.0, float(parameter[2:])))
                except ValueError:
                    weight = 0.0
        ranges[name] = weight
    return ranges


def _weight(media: str, ranges: dict[str, float]) -> float:
    """The weight of a type: that of the most specific range."""
    for known in (media, f"{media.partition('/')[0]}/*", "*/*"):
        if known in ranges:
            return ranges[known]
    return 0.0
