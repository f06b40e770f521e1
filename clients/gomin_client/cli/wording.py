"""The text of messages on a terminal: in terms of options, and without control characters.

The library's messages name arguments of Python, in backticks; here they become the options that set them. Names of
files, messages of servers and values of configs may contain anything: control characters, with which a text could
change what the terminal shows, are escaped.
"""

from __future__ import annotations

import json
import re
from typing import Any

import typer

# arguments of Python in messages of the library → options
_OPTIONS = (
    (r'`to_gomin\(mel, "([\w-]+)"\)`', r"--mel-convention \1"),
    (r"`convention=…`", "--mel-convention"),
    (r"`force=True`", "--force"),
    (r"`mel\.T`", "--transpose"),
    (r"`Vocoder\.analyze`", "`gomin-client analyze`"),
    (r"`Connection\(timeout_s=…\)`", "--timeout"),
    (r"`Connection\(headers=…\)`", "--header"),
    (r"`Connection\(ca=…, certificate=…, key=…\)`", "--ssl-ca, --ssl-cert and --ssl-key"),
    (r"`Connection\(tls=True\)`", "--ssl"),
    (r"`certificate`", "--ssl-cert"),
    (r"`key`", "--ssl-key"),
    (r'`Vocoder\("local:model_repository"\)`', "`--url local:model_repository`"),
)

# C0 and C1 controls, and what turns the direction of text round or breaks lines
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def in_options(message: str) -> str:
    """A message of the library, for somebody at the command line."""
    for argument, option in _OPTIONS:
        message = re.sub(argument, option, message)
    return message


def visible(text: str) -> str:
    r"""The text with its control characters escaped, as \x1b."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def echo(line: str, *, err: bool = False) -> None:
    """Print one line of a message."""
    typer.echo(visible(in_options(line)), err=err)


def to_json(facts: Any) -> str:
    """JSON that can be shown on a terminal; an array of numbers takes one line."""
    text = json.dumps(_in_options(facts), indent=2, ensure_ascii=False)
    text = re.sub(r"\[\n[\d\s.,eE+-]*\]", lambda found: "[" + " ".join(found[0][1:-1].split()) + "]", text)
    return re.sub(r"[^\n\x20-\x7e\xa0-\U0010ffff]|[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]", _json_escape, text)


def _in_options(facts: Any) -> Any:
    if isinstance(facts, dict):
        return {name: _in_options(value) for name, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_in_options(value) for value in facts]
    return in_options(facts) if isinstance(facts, str) else facts


def _json_escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
