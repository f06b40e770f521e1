"""docs/gateway.md says what the gateway does."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile

from gomin_gateway.options import AddressOptions, LimitOptions
from gomin_gateway.parameters import (
    AnalyzeParameters,
    ReconstructParameters,
    ReconstructStepsParameters,
    ResampleParameters,
    SynthesizeParameters,
    SynthesizeStepsParameters,
    names_of,
)
from gomin_gateway.problems import KINDS
from gomin_gateway.settings import Limits
from tests.gateway.running import Gateway, running
from tests.support import EXAMPLES, ROOT

PAGE = (ROOT / "docs/gateway.md").read_text()


def test_the_table_of_problems() -> None:
    rows = [f"| {status} | `{kind}` | {title[0].lower()}{title[1:]} |" for kind, (status, title) in KINDS.items()]
    rows = [row.replace("| aPI", "| API") for row in rows]
    assert "\n".join(rows) in PAGE


def test_the_table_of_parameters() -> None:
    table = PAGE.partition("| parameter | of | value |")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`([\w-]+)`", row.split("|")[1])}
    tasks = (ReconstructParameters, SynthesizeParameters, AnalyzeParameters, ResampleParameters)
    assert named == {name for parameters in tasks for name in names_of(parameters)}


def test_the_parameters_of_steps() -> None:
    for steps, whole in (
        (ReconstructStepsParameters, ReconstructParameters),
        (SynthesizeStepsParameters, SynthesizeParameters),
    ):
        assert set(names_of(whole)) - set(names_of(steps)) == {"window", "stream"}
        assert set(names_of(steps)) <= set(names_of(whole))
        assert steps().model == "diffusion"


def test_the_table_of_limits() -> None:
    limits = LimitOptions().build()
    assert limits == Limits()
    for option, value in [
        ("--max-body", f"{limits.body_bytes / 1e6:g} MB"),
        ("--max-audio", f"{limits.audio_s:g} s"),
        ("--max-concurrent", limits.concurrent),
        ("--deadline", f"{limits.deadline_s:g} s"),
        ("--idle-timeout", f"{limits.idle_s:g} s"),
    ]:
        assert f"| `{option}` | {value} |" in PAGE
    assert f"`{AddressOptions().host}:{AddressOptions().port}`" in PAGE
    assert f"`--drain` ({limits.drain_s:g} s)" in PAGE


def test_the_python_example(gateway: Gateway) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(example.replace("localhost:8080", f"127.0.0.1:{gateway.port}"), "gateway.md", "exec"), {})


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_commands(gateway: Gateway, streaming: Path, tmp_path: Path) -> None:
    samples, rate = soundfile.read(EXAMPLES[0])
    for name in ("a.wav", "long.wav"):
        soundfile.write(tmp_path / name, samples, rate)
    commands = [line.partition(" | aplay")[0] for line in PAGE.splitlines() if line.startswith("curl ")]
    assert len(commands) == 8
    with running([f"local:{streaming}"]) as steps:
        for command in commands:
            port = steps.port if "/steps" in command else gateway.port
            words = shlex.split(command.partition(" > ")[0].replace("localhost:8080", f"127.0.0.1:{port}"))
            result = subprocess.run([*words, "--fail", "--silent"], cwd=tmp_path, capture_output=True, check=False)
            assert result.returncode == 0, command
            if "-o" in words:
                assert (tmp_path / words[-1]).stat().st_size > 10_000
            else:
                assert len(result.stdout) > 10_000
