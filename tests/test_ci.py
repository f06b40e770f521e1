"""What .ci/run installs, and what happens where a program is missing."""

from __future__ import annotations

import re

import pytest

from tests.support import ROOT, tool

WITHOUT_PACKAGE = {"gofmt", "sh"}  # gofmt is part of go; sh is everywhere


def test_ci_installs_the_programs_that_tests_ask_for() -> None:
    script = (ROOT / ".ci/run").read_text()
    asked = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r'\btool\("([\w.-]+)"\)', path.read_text())
    }

    assert {"curl", "ffmpeg", "go", "node", "sox"} <= asked
    assert [name for name in asked - WITHOUT_PACKAGE if f" {name}:" not in script] == []
    assert "export CI=true" in script


def test_a_program_that_is_missing_skips_a_test_and_fails_it_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = "no-such-program"
    monkeypatch.delenv("CI", raising=False)
    assert tool("sh").endswith("/sh")
    with pytest.raises(pytest.skip.Exception, match=absent):
        tool(absent)

    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=absent):
        tool(absent)
