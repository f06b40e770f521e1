"""`make demo`: the whole of it in a terminal, kept until Ctrl-C; and the commands that it prints."""

from __future__ import annotations

import importlib.util
import os
import pty
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
import soundfile
import torch

from gomin_export.networks import DiffusionWrapper, GomiGAN
from tests.support import BIN, DEMO_CHECKPOINT, EXAMPLES, GOLDEN, ROOT, free_ports, tool

NOTES = {"gan": "A small network of the tests.", "diffusion": "Another small network: it was never trained."}


@pytest.fixture(scope="module")
def demo() -> Iterator[ModuleType]:
    """examples/demo.py as a module."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        spec = importlib.util.spec_from_file_location("demo", ROOT / "examples" / "demo.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["demo"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "examples"))


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *command: str) -> None:
        self.process, self._terminal = pty.fork()
        if self.process == 0:
            os.chdir(ROOT)
            os.execvp(command[0], command)
        self.text = ""

    def read_until(self, words: str | None) -> None:
        """Read what is printed until it contains the words, or to its end."""
        while words is None or words not in self.text:
            try:
                data = os.read(self._terminal, 65536)
            except OSError:  # the command has ended
                data = b""
            if not data:
                assert words is None, self.text
                return
            self.text += data.decode().replace("\r\n", "\n")

    def press_ctrl_c(self) -> int:
        """The exit status that it leads to."""
        os.write(self._terminal, b"\x03")
        self.read_until(None)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def running(*words: str) -> list[str]:
    """The command lines of all processes that contain one of the words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found += [line] if any(word in line for word in words) else []
    return found


def run_printed(commands: str, exported: Path, home: Path) -> None:
    """Run commands as they were printed, with a checkpoint, and on ports that no other test uses.

    `exported`: what gomin-export makes of the checkpoint; it finds that there, and need not trace the network again.
    """
    home.mkdir()
    shutil.copytree(exported, home / "model_repository")
    (home / "examples").symlink_to(ROOT / "examples")
    if (ROOT / ".venv").exists():
        (home / ".venv").symlink_to(ROOT / ".venv")
    ports = dict(zip(dict.fromkeys(re.findall(r"(?:port |localhost:)(\d+)", commands)), free_ports(4), strict=True))
    commands = re.sub(r"(port |localhost:)(\d+)", lambda found: f"{found[1]}{ports[found[2]]}", commands)
    commands = commands.replace("YOURS", str(GOLDEN / "gan_v3.pt"))
    gateway = re.findall(r"--port (\d+)", commands)[0]
    script = f"""set -e
trap 'kill $(jobs -p); wait' EXIT
{commands}
curl -sS --retry 300 --retry-delay 1 --retry-all-errors localhost:{gateway}/readyz
"""
    result = subprocess.run(["bash", "-c", script], cwd=home, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "\nmodel_repository/gomin_gan/1\n" in result.stdout
    assert '{"status":"ready"}' in result.stdout
    assert soundfile.info(home / "yours.wav").frames
    assert "<title>Listening report" in (home / "yours.html").read_text()


@pytest.mark.server
@pytest.mark.slow
def test_the_whole_demo_in_a_terminal(tiny_repository: Path, tmp_path: Path) -> None:
    """With other checkpoints of the same names: nothing about them is written down in the demo."""
    tool("curl")
    shipped, home = tmp_path / "checkpoints", tmp_path / "demo"
    shipped.mkdir()
    torch.manual_seed(0)
    torch.save(GomiGAN(128, 8, (16, 16), (3,), ((1,),)).state_dict(), shipped / "demo_gan.pt")  # traced in no time
    torch.save(DiffusionWrapper(128, 2, 8, 2).state_dict(), shipped / "demo_diffusion.pt")
    for kind, note in NOTES.items():
        (shipped / f"demo_{kind}.txt").write_text(note + "\n")
    options = f"--into {home} --checkpoints {shipped}"

    terminal = Terminal(
        "make", "-s", "-o", "install", "demo", f"BIN={BIN}", "KEEP=1", "CKPT=", f"DEMO_OPTIONS={options}"
    )
    terminal.read_until("Ctrl-C ends both.")

    text = terminal.text
    (address,) = re.findall(r"Open  (http://localhost:\d+/)  in a browser", text)
    with urllib.request.urlopen(address) as page:
        assert b"<title>GOMIN" in page.read()
    commands = text[text.index("YOURS (after Ctrl-C):\n") : text.index("\nThe same in one command")].partition("\n")[2]
    assert len(running(str(home))) >= 2  # the launcher and tritonserver
    assert terminal.press_ctrl_c() == 0, terminal.text
    assert running(str(home), f"--port {address[-5:-1]}") == []
    assert terminal.text.count("ended with status 0") == 2, terminal.text
    assert "largest difference: 0 steps" in text or "largest difference: 1 steps" in text
    assert "gomin_diffusion_stream version 1: 1 of 1 cases passed" in text  # the page shows its steps
    names = {path.stem for path in EXAMPLES}
    assert {path.stem for path in (home / "gan").iterdir()} == names
    shortest = min(EXAMPLES, key=lambda path: soundfile.info(path).duration)
    for chain in ("diffusion", "diffusion_fast"):
        assert [path.stem for path in (home / chain).iterdir()] == [shortest.stem]
    for page, kind, sounds in (("report", "gan", 2 * len(names)), ("diffusion", "diffusion", 4)):
        content = (home / f"{page}.html").read_text()
        assert NOTES[kind] in content
        assert content.count("<audio ") == sounds
        assert NOTES[kind] in " ".join(text.split())
    for name in ("spectrograms", "diffusion"):
        assert (home / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    run_printed(commands, tiny_repository, tmp_path / "next")


def test_a_checkpoint_is_recognized(demo: ModuleType) -> None:
    for name, kind in (("gan_v3", "gan"), ("diffusion_small", "diffusion")):
        assert demo.recognized(str(GOLDEN / f"{name}.pt")).kind == kind
    assert [each.kind for each in demo.own_checkpoints(DEMO_CHECKPOINT.parent)] == ["gan", "diffusion"]
    assert all(each.note and Path(each.path).is_file() for each in demo.own_checkpoints(DEMO_CHECKPOINT.parent))


@pytest.mark.parametrize(("name", "words"), [("README.md", "is a text file"), ("nowhere.pt", "no such file")])
def test_a_wrong_file_is_one_sentence_of_the_exporter(
    demo: ModuleType, capfd: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    with pytest.raises(SystemExit) as end:
        demo.recognized(str(ROOT / name))

    said = capfd.readouterr().err
    assert end.value.code not in (0, None)
    assert said.startswith(f"gomin-export: {ROOT / name}")
    assert words in said
    assert len(said.splitlines()) == 1


def test_the_next_free_port_is_taken_and_said(demo: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = demo.free_ports({"HTTP": port, "gRPC": port + 1})

    assert port < ports["HTTP"] != port + 1  # that is the usual one of the other
    assert f"port {port} (HTTP) is in use; taking {ports['HTTP']}" in capfd.readouterr().out
