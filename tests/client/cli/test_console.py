"""Messages at the command line: in terms of options, without control characters; errors of the operating system."""

import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gomin_client.cli import console
from gomin_client.cli.console import exit_status
from gomin_client.cli.main import app
from tests.support import BIN, ROOT, invoke

pytestmark = pytest.mark.long

LIBRARY = ("mel", "inference", "transports", "contract", "sampling")
OF_OTHER_PROGRAMS = {
    *("--model-repository", "--grpc-restricted-protocol", "--http-restricted-api", "--open-admin"),  # gomin-server
    "--stream",  # gomin-export
}
LIMITED = (
    "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); "
    "import gomin_client.cli.main as cli; cli.main()"
)


def shell(command: str, **variables: str | Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **{name: str(variables[name]) for name in variables}}
    return subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, timeout=60, check=False)


def assert_one_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """On standard error, without a traceback; and status 1."""
    assert result.returncode == 1, result.stderr
    (line,) = result.stderr.splitlines()
    for word in words:
        assert word in line


def test_standard_output_that_is_closed(tree: Path) -> None:
    quiet = shell("gomin-client analyze a.wav -o a.npz >&-")
    wanted = shell("gomin-client analyze a.wav -o - >&-")
    summary = shell("gomin-client analyze a.wav -o b.npz --json >&-")

    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert (tree / "a.npz").is_file()
    assert_one_line(wanted, "a.wav: standard output is closed")
    assert_one_line(summary, "gomin-client: standard output is closed")
    assert (tree / "b.npz").exists()


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_standard_error_that_is_closed(tree: Path, closed: str) -> None:
    result = shell(f"gomin-client analyze a.wav inputs -o out/ {closed}")

    assert result.returncode == 0
    assert len(list((tree / "out").rglob("*.npz"))) == 5
    assert shell(f"gomin-client analyze no.wav -o out/ {closed}").returncode == 1


def test_what_libraries_print_does_not_get_into_an_output(tree: Path) -> None:
    """A file that is opened while standard error is closed would get its descriptor."""
    (tree / "a.mp3").write_bytes((tree / "b.mp3").read_bytes()[:-40])  # libmpg123 prints a warning
    for name, closed in (("open.npz", ""), ("closed.npz", "2>&-"), ("all.npz", "<&- >&- 2>&-")):
        assert shell(f"gomin-client analyze a.mp3 -o {name} {closed}").returncode == 0

    assert (tree / "open.npz").read_bytes() == (tree / "closed.npz").read_bytes() == (tree / "all.npz").read_bytes()


def test_standard_input_that_is_closed(tree: Path) -> None:
    assert_one_line(shell("gomin-client analyze - -o x.npz <&-"), "standard input cannot be read: Bad file descriptor")


def test_standard_output_that_is_full(tree: Path) -> None:
    assert_one_line(
        shell("gomin-client analyze a.wav -o - >/dev/full"), "cannot write its output: No space left on device"
    )


def test_the_collector_is_spared_what_a_batch_has_loaded(tree: Path) -> None:
    program = (
        "import atexit, gc; from gomin_client.cli.main import main; "
        "atexit.register(lambda: print(gc.get_freeze_count() > 9999)); main()"
    )
    command = [sys.executable, "-c", program, "analyze", "a.wav", "-o", "a.npz", "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (result.stdout, result.stderr) == ("True\n", "")
    frozen = gc.get_freeze_count()
    assert invoke(app, "analyze", "a.wav", "-o", "b.npz").returncode == 0
    assert gc.get_freeze_count() == frozen  # a process that does more than this is left alone


def test_a_current_directory_that_is_gone(tmp_path: Path) -> None:
    result = shell("mkdir $W/d; cd $W/d; rmdir $W/d; gomin-client analyze x.wav", W=tmp_path)

    assert_one_line(result, "the current directory cannot be used: No such file or directory")


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.npz", "x.npy", "x.pt"])
def test_a_file_that_cannot_grow(tree: Path, repository: Path, name: str) -> None:
    """As on a full disk: the system's reason, once, for every library; and no leftover files."""
    before = set(tree.iterdir())
    task = ["reconstruct", "--url", f"local:{repository}"] if name in ("x.wav", "x.flac") else ["analyze"]

    result = subprocess.run(
        [sys.executable, "-c", LIMITED, *task, "a.wav", "-o", name],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert_one_line(result, f"{name}: cannot be written: File too large")
    assert set(tree.iterdir()) == before


def test_standard_input_that_does_not_fit_into_the_temporary_directory(tree: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tree)}
    with (tree / "a.wav").open("rb") as file:
        result = subprocess.run(
            [sys.executable, "-c", LIMITED, "analyze", "-", "-o", "x.npy"],
            stdin=file, env=env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    assert_one_line(
        result, f"gomin-client: {tree}: temporary files cannot be written there: File too large; set TMPDIR to another"
    )


def test_an_error_about_a_file_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, exit_status("toy", lambda: ""):
        open("/nowhere/at/all")  # noqa: SIM115

    assert end.value.code == 1
    assert capsys.readouterr().err == "toy: /nowhere/at/all: No such file or directory\n"


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
    assert console.in_options(message) == expected


def test_the_library_speaks_of_arguments() -> None:
    """Its messages name no options but those of gomin-server and gomin-export: Python programs have none."""
    for folder in LIBRARY:
        for path in (ROOT / "clients/gomin_client" / folder).glob("*.py"):
            text = re.sub(r'"""(?s:.*?)"""|#.*|def parse_headers(?s:.*)', "", path.read_text())
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= OF_OTHER_PROGRAMS, path


@pytest.mark.parametrize("text", ["\x1b[2J", "\r\n", "\x7f", "\x9b31m", "\u202egnp.", "\u2028", "\x00"])
def test_control_characters_are_escaped(text: str) -> None:
    shown = console.visible(f"a{text}ü")
    assert shown.isprintable()
    assert shown.startswith("a\\")
    assert shown.endswith("ü")

    as_json = console.to_json({"error": text})
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
