"""The documentation: examples run, links resolve, named commands and options exist, lines have one width."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer

from gomin_client.files import formats
from gomin_client.inference import windows
from gomin_server.cli import main as gomin_server
from tests.support import DEMO_CHECKPOINT, ROOT, RunningServer

pytestmark = pytest.mark.long

WIDTH = 100
FOLDERS = (".", "docs", "checkpoints", "examples", "model_repository")
PAGES = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
RECORDINGS = ("a.wav", "stereo.wav")


@pytest.mark.server
@pytest.mark.parametrize("page", ["docs/python.md", "docs/streaming.md", "README.md"])
def test_python_examples(page: str, server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In page order, in one namespace."""
    wave = (0.3 * np.sin(np.arange(16000) / 20)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([wave, wave / 2], axis=1), 16000)
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text()
    examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert examples
    namespace: dict[str, object] = {}
    for example in examples:
        code = example.replace("grpc://localhost:8001", server.grpc).replace("http://localhost:8000", server.http)
        exec(compile(code, page, "exec"), namespace)


def test_the_recipes_work(repository: Path, tmp_path: Path) -> None:
    """In a separate process, because they register a sampler, a format and a transport."""
    (tmp_path / "model_repository").symlink_to(repository)
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs/contributing.md").read_text(), flags=re.DOTALL)
    assert examples
    command = [sys.executable, "-c", "\n".join(examples)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_wrapped(page: str) -> None:
    """Tables, code, headings and pictures cannot be wrapped."""
    too_long = [
        line for line in prose(page).splitlines() if len(line) > WIDTH and not line.startswith(("|", "#", "!["))
    ]

    assert not too_long


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors_resolve(page: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)

    assert not broken


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_exist(page: str) -> None:
    """In code blocks, an option must belong to its command; in the text, to any command."""
    commands = command_options()
    known = set().union(*commands.values()) | server_options() | OTHER_OPTIONS
    text = (ROOT / page).read_text()
    problems = []
    for line in code_lines(text):
        found = re.search(r"\b(gomin-(?:client|export)) ([a-z]+)(.*)", line)
        if found and (command := f"{found[1]} {found[2]}") in commands:
            problems += [f"{command} {name}" for name in options_in(found[3]) if name not in commands[command]]
        for program in {"gomin-gateway", "benchmarks.gpu", "benchmarks.quality"} & set(line.split()):
            problems += [f"{program} {name}" for name in options_in(line) if name not in commands[program]]
    for program, command in re.findall(r"\b(gomin-client|gomin-export) ([a-z]+)\b", "\n".join(quoted(text))):
        if f"{program} {command}" not in commands:
            problems.append(f"{program} {command}")
    problems += [name for name in options_in("\n".join(quoted(text))) if name not in known]

    assert not problems


def test_the_example_of_a_bad_option_is_noticed() -> None:
    """The three helpers see options; otherwise the test above could not fail."""
    text = "Use `--no-such`.\n```\ngomin-client info --jobs 2  # --model\n```\n"

    assert options_in("\n".join(quoted(text))) == ["--no-such", "--jobs"]
    assert "--jobs" not in command_options()["gomin-client info"]
    assert "--url" in command_options()["gomin-client info"]


def test_the_map_names_every_module() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    named: set[str] = set()
    for package, tree in re.findall(r"^### (\S+)\n\n```\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        folder = ""
        for line in tree.splitlines():
            name = line.split()[0]
            folder = folder if line.startswith(" ") else ""
            if name.endswith("/"):
                folder = name
            else:
                named.add(f"{package}/{folder}{name}")
    packages = (
        ROOT / "clients/gomin_client",
        ROOT / "clients/gomin_gateway",
        ROOT / "gomin_export",
        ROOT / "gomin_server",
    )
    found = [path for package in packages for kind in ("*.py", "*.js") for path in package.rglob(kind)]
    modules = {path.relative_to(ROOT).as_posix() for path in found}
    modules = {path for path in modules if not path.endswith("__init__.py")} | {"clients/gomin_client/__init__.py"}

    assert sorted(modules - named) == [], "add these to docs/architecture.md"
    assert sorted(named - modules) == [], "remove these from docs/architecture.md"


def test_the_table_of_what_to_change_names_paths_that_exist() -> None:
    table = re.search(r"^\| to change or add .*?\n\n", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert table
    missing = []
    for row in table[0].strip().splitlines()[2:]:
        folder = ROOT
        for name in re.findall(r"`([^`]+)`", row.split("|")[2]):
            path = ROOT / name if "/" in name else folder / name
            folder = path if path.is_dir() else path.parent
            missing += [] if path.exists() else [name]

    assert not missing


def test_the_table_of_formats_is_that_of_the_code() -> None:
    rows = [
        f"| {' '.join(known.extensions)} | {known.description} | {'yes' if known.reader else ''} "
        f"| {known.extension if known.writer else ''} | {', '.join(known.subtypes)} | {', '.join(known.streamable)} "
        f"| {known.requirement.package if known.requirement else ''} |"
        for known in sorted(formats.FORMATS, key=lambda known: known.kind)
    ]
    table = re.sub(r" +", " ", "\n".join(rows))

    assert f"\n{table}\n\n" in (ROOT / "docs/client.md").read_text(), f"docs/client.md should have\n{table}"


def test_halos_and_windows_are_those_of_the_code() -> None:
    from gomin_export.networks import DiffusionConfig, GANConfig, GomiGAN

    gan = GANConfig().halo_frames
    demo = GomiGAN.from_pretrained(str(DEMO_CHECKPOINT)).halo_frames
    step = DiffusionConfig().halo_frames
    chain, fast = 50 * step, 6 * step
    window = windows.default_size(chain)
    streaming, diffusion, http = ((ROOT / f"docs/{name}.md").read_text() for name in ("streaming", "diffusion", "http"))

    assert f"| halo, in frames of 10.7 ms | {gan} | {demo} |" in streaming
    assert f"| `halo_frames` | {gan} | {demo} |" in http
    mel = 512 // 256  # frames that half a transform reaches into
    assert f"| `halo_frames` + ⌈`n_fft` / 2 / hop⌉ | {gan + mel} | {demo + mel} |" in http
    sizes = [windows.default_size(halo) for halo in (gan, demo)]
    assert f"| default window, in frames | {sizes[0]} | {sizes[1]} |" in streaming
    work = [100 * windows.overhead(size, halo) for size, halo in zip(sizes, (gan, demo), strict=True)]
    assert f"| extra work for halos, in long recordings | {work[0]:.0f} % | {work[1]:.0f} % |" in streaming
    assert f"{step} frames per step: {chain} for the released chain and {fast} for `fast`" in joined(diffusion)
    assert f"this is {window} frames or {window * 256 / 24000:.0f} s of audio" in joined(diffusion)


def test_pre_commit_runs_what_make_check_runs() -> None:
    hooks = re.findall(r"entry: \.venv/bin/(.*)", (ROOT / ".pre-commit-config.yaml").read_text())
    recipe = re.search(r"^check: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe

    assert hooks == re.findall(r"\$\(BIN\)/(.*)", recipe[1])


def test_hosted_ci_calls_the_script_that_a_person_runs() -> None:
    assert "- run: .ci/run\n" in (ROOT / ".github/workflows/ci.yml").read_text()


# Options of tritonserver, docker, make, pip and GOMIN's own program that the pages name.
OTHER_OPTIONS = {
    "--array",
    "--job-name",
    "--build",  # docker compose
    *("--http-address", "--grpc-address", "--metrics-address", "--http-restricted-api", "--load-model", "--log-info"),
    *(
        "--backend-directory",
        "--exit-on-error",
        "--grpc-port",
        "--grpc-restricted-protocol",
        "--grpc-use-ssl",
        "--http-port",
        "--http-restricted-api",
        "--log-file",
    ),
    *(
        "--metrics-port",
        "--model-control-mode",
        "--model-repository",
        "--install-completion",
        "--mel-frames",
        "--enable-shared",
    ),
    *("--gpus", "--rm", "--shm-size", "--seconds", "--help", "--version", "--exit-timeout-secs", "--data-binary"),
    *("--fail-with-body", "--http-max-input-size"),
}


def prose(page: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def joined(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


def anchors(file: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(file.relative_to(ROOT).as_posix()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code_lines(text: str) -> list[str]:
    """The lines of all code blocks that are not Python, without comments."""
    blocks = re.findall(r"^```(?!python)\w*\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [re.sub(r"\s# .*|\s#$", "", line) for block in blocks for line in block.splitlines()]


def quoted(text: str) -> list[str]:
    """What a page marks as code: spans in the text and lines of code blocks."""
    without_blocks = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`]+)`", without_blocks) + code_lines(text)


def options_in(text: str) -> list[str]:
    return re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]*", text)


def server_options() -> set[str]:
    """The options of gomin-server."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        gomin_server(["--help"])
    return set(options_in(shown.getvalue()))


def command_options() -> dict[str, set[str]]:
    """Command, as "gomin-client info" → its options."""
    from benchmarks import quality
    from benchmarks.gpu.__main__ import command_line
    from gomin_client.cli.main import app as client
    from gomin_export.cli import app as export
    from gomin_gateway.cli import app as gateway

    found: dict[str, set[str]] = {}
    for program, app in (("gomin-client", client), ("gomin-export", export)):
        commands: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
        for name, command in commands.items():
            options = {
                option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
            }
            found[f"{program} {name}"] = options | {"--help"}
    parameters = typer.main.get_command(gateway).params
    found["gomin-gateway"] = {name for parameter in parameters for name in parameter.opts} | {"--help"}
    parsers = {"benchmarks.gpu": command_line(), "benchmarks.quality": quality.command_line()}
    # argparse has no public list
    return {**found, **{name: set(parser._option_string_actions) for name, parser in parsers.items()}}
