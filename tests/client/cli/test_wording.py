"""Messages of the library at the command line: in terms of options, without control characters."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gomin_client.cli import wording
from gomin_client.cli.main import app
from tests.support import ROOT, invoke

LIBRARY = ("mel", "inference", "transports", "contract", "sampling")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('if so, `to_gomin(mel, "db")` converts it', "if so, --mel-convention db converts it"),
        ("`force=True` skips this check", "--force skips this check"),
        ("give both `certificate` and `key`", "give both --ssl-cert and --ssl-key"),
        ("run `gomin-server`", "run `gomin-server`"),
    ],
)
def test_arguments_become_options(message: str, expected: str) -> None:
    assert wording.in_options(message) == expected


def test_the_library_speaks_of_arguments() -> None:
    """Its messages name no options: Python programs have none."""
    for folder in LIBRARY:
        for path in (ROOT / "clients/gomin_client" / folder).glob("*.py"):
            text = re.sub(r'"""(?s:.*?)"""|#.*|def parse_headers(?s:.*)', "", path.read_text())
            assert not re.findall(r"[ (`]--[a-z][a-z-]+", text.replace("gomin-server --model-repository", "")), path


@pytest.mark.parametrize("text", ["\x1b[2J", "\r\n", "\x7f", "\x9b31m", "\u202egnp.", "\u2028", "\x00"])
def test_control_characters_are_escaped(text: str) -> None:
    shown = wording.visible(f"a{text}ü")
    assert shown.isprintable()
    assert shown.startswith("a\\")
    assert shown.endswith("ü")

    as_json = wording.to_json({"error": text})
    assert as_json.replace("\n", "").isprintable()
    assert json.loads(as_json) == {"error": text}


def test_of_a_file_name_and_of_a_config(tmp_path: Path) -> None:
    """Names and texts from other people are escaped on the terminal."""
    result = invoke(app, "analyze", tmp_path / "a\x1b[31m.wav")
    assert result.returncode != 0
    assert "a\\x1b[31m.wav" in result.stderr
    assert "\x1b" not in result.stderr

    (tmp_path / "models/gomin_gan/1").mkdir(parents=True)
    config = 'parameters { key: "gomin.kind" value: { string_value: "\\033[2Jgan" } }'
    (tmp_path / "models/gomin_gan/config.pbtxt").write_text(config)
    result = invoke(app, "info", "--url", f"local:{tmp_path / 'models'}")
    assert "\\x1b[2Jgan" in result.stdout
    assert "\x1b" not in result.stdout
