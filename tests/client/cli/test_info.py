"""`gomin-client info`: what it prints, and that its examples run as they are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from gomin_client.cli.main import app
from gomin_client.native import library
from tests.support import BIN, EXAMPLES, ROOT, RunningServer, invoke, tool


def info(url: str, *options: str) -> str:
    result = invoke(app, "info", "--url", url, *options)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def models(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(info(url, "--json"))["models"]
    return found


def examples(text: str) -> dict[str, str]:
    """Model → its example, of the text for people."""
    found = re.findall(r"^(\S+): .*\n(?:  .*\n)*?  example: (.*)$", text, re.MULTILINE)
    return dict(found)


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, cwd=cwd, env=env, timeout=300, check=False
    )


def test_the_requests_work_over_http(server: RunningServer) -> None:
    for model in models(server.http):
        example = model["example"]
        request = urllib.request.Request(
            server.http + example["path"], json.dumps(example["body"]).encode(), example["headers"], method="POST"
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            answer = json.load(response)
        assert example["method"] == "POST"
        assert answer["model_name"] == model["name"]
        assert [output["name"] for output in answer["outputs"]] == [output["name"] for output in model["outputs"]]


def test_the_lines_for_curl_work(server: RunningServer, tmp_path: Path) -> None:
    """As they are printed, in a shell; they send the example of the JSON."""
    tool("curl")
    printed = examples(info(server.http))
    described = models(server.http)

    assert set(printed) == {model["name"] for model in described}
    for model in described:
        assert model["example"]["curl"] == printed[model["name"]]
        assert len(printed[model["name"]]) < 500
        result = shell(printed[model["name"]], tmp_path)
        assert result.returncode == 0, result.stderr
        answer = json.loads(result.stdout)
        assert answer["model_name"] == model["name"], answer
        (tmp_path / "body").write_text(json.dumps(model["example"]["body"]))
        sent = shell(printed[model["name"]].replace("curl -sS", "set --").replace("-d", "; printf %s", 1), tmp_path)
        assert json.loads(sent.stdout) == model["example"]["body"], sent.stderr


@pytest.mark.parametrize("protocol", ["grpc", "http", "local"])
def test_the_commands_work(protocol: str, server: RunningServer, repository: Path, tmp_path: Path) -> None:
    url = {"grpc": server.grpc, "http": server.http, "local": f"local:{repository}"}[protocol]
    wave, rate = soundfile.read(EXAMPLES[0], frames=5000)
    soundfile.write(tmp_path / "a.wav", wave, rate)
    commands = {model["name"]: model["example"]["command"] for model in models(url)}

    assert commands["gomin_denoiser"] is None
    for name, made in (("gomin_gan", "a_gan.wav"), ("gomin_diffusion", "a_diffusion.wav")):
        if protocol != "http":
            assert examples(info(url))["gomin_mel"] == "a request over HTTP, in the output of --json"
            assert examples(info(url))[name] == commands[name]
        result = shell(commands[name], tmp_path)
        assert result.returncode == 0, result.stderr
        assert np.isfinite(soundfile.read(tmp_path / made)[0]).all()


def test_what_people_read(server: RunningServer) -> None:
    text = info(server.http)

    assert text.startswith(f"{server.http} (triton 2.51.0)\n\ngomin_denoiser: one denoiser step")
    gan = text[text.index("gomin_gan: ") :]
    assert gan.startswith("gomin_gan: mel spectrogram to waveform, in one pass\n  kind: gan\n")
    assert "  input mel: FP32 (batch, 128, frames)\n    mel spectrogram of 128 bands" in gan
    assert "    unit: GOMIN's scale, 0 is -100 dB or less, 1 is 0 dB\n  output audio: FP32 (batch, 1, samples)" in gan
    assert "  sample rate: 24000 Hz; hop: 256 samples (10.7 ms)\n" in gan
    assert re.search(r"  limits: 16 items in a batch; \d+ frames in one request, of all its items together \(", gan)
    assert "  input first_sample: INT64 (batch, 1), optional\n" in text
    assert "  default chain: sampler ddpm, steps 50, schedule linear\n" in text


def test_secrets_of_headers_are_not_printed(server: RunningServer) -> None:
    for url, words in ((server.http, "-H 'x-key: ...'"), (server.grpc, "--header 'x-key: ...'")):
        text = info(url, "--header", "X-Key: secret")

        assert words in text
        assert "secret" not in text


def test_a_model_of_others_is_listed_with_its_problem(tmp_path: Path) -> None:
    (tmp_path / "other/1").mkdir(parents=True)
    (tmp_path / "other/config.pbtxt").write_text('backend: "onnxruntime"')

    (model,) = models(f"local:{tmp_path}")
    assert "is not a GOMIN model" in model["problem"]
    assert f"other\n  {model['problem']}\n" in info(f"local:{tmp_path}")


def test_the_documentation_names_every_field(server: RunningServer) -> None:
    """The table of docs/client.md, and what is printed."""
    page = (ROOT / "docs/client.md").read_text()
    table = page[page.index("### Fields of `info --json`") :].split("\n\n")[2]
    documented = set(re.findall(r"`([^`]+)`", "".join(row.split("|")[1] for row in table.splitlines()[2:])))

    found = set(fields_of(json.loads(info(server.http, "--json"))))

    assert found == documented


def fields_of(value: Any, path: str = "") -> list[str]:
    """Paths of all fields in a JSON value, with [] for the elements of an array."""
    if isinstance(value, dict) and not path.endswith((".headers", ".body")):
        below = [name for key, one in value.items() for name in fields_of(one, f"{path}.{key}".lstrip("."))]
        return ([path] if path and not path.endswith("[]") else []) + below
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [name for one in value for name in fields_of(one, path + "[]")]
    return [path]


def test_a_library_that_is_not_there_or_was_not_recorded(
    native_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(shutil.copytree(native_repository, tmp_path / "models"))
    config = home / "gomin_gan/config.pbtxt"
    recorded = re.search(
        r'^parameters \{ key: "gomin\.operators_sha256\.1".*"([0-9a-f]{64})".*\n', config.read_text(), re.M
    )
    assert recorded is not None
    line = f"    operators: gomin 1; library sha256 {recorded[1]}\n"
    assert f"{line}    parity: " in info(f"local:{home}")
    with monkeypatch.context() as context:
        context.setattr(library, "DIRECTORY", tmp_path)
        problem = "    it needs the operators gomin 1, and this installation of gomin-triton has no library of them"
        assert f"{line}{problem}" in info(f"local:{home}")

    config.write_text(config.read_text().replace(recorded[0], ""))

    assert "    operators: gomin 1; its config.pbtxt does not say with which library\n" in info(f"local:{home}")
