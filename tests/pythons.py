"""The wheel and the client's tests in other Pythons: python -m tests.pythons [VERSION …].

Installs the wheel with numpy 2 and the extras `formats`, `local` and `plot` into a fresh environment of each version of
Python that pyproject.toml names, and runs the tests of the client there. torch is not installed: tests that export a
model are skipped, and files of tests that import what is missing are left out. Both are listed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.support import ROOT, interpreter

_CLASSIFIER = "Programming Language :: Python :: "
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SUPPORTED = [text.removeprefix(_CLASSIFIER) for text in _PROJECT["classifiers"] if text.startswith(_CLASSIFIER)]

EXTRAS = "formats,local,plot"
TEST_PACKAGES = ["filelock", "hypothesis", "librosa", "pytest", "pytest-xdist", "pyyaml", "scipy", "trustme"]
NOT_INSTALLED = "torch|diffusers|playwright|ray|pandas|pyarrow"  # too large, or of another extra


def build_wheel(directory: Path, **environment: str) -> tuple[Path, str]:
    """Build the wheel of the source tree into an empty directory; returns it, and what the build printed.

    Args:
        directory: where to.
        environment: environment variables to change.
    """
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory]
    changed = {**os.environ, **environment}
    result = subprocess.run(command, cwd=ROOT, env=changed, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (wheel,) = directory.glob("*.whl")
    return wheel, result.stdout + result.stderr


def constraints(home: Path) -> Path:
    """A file of the versions that we test with, in a folder; but with numpy 2, which the server excludes."""
    path = home / "constraints.txt"
    path.write_text(re.sub(r"(?m)^numpy==.*$", "numpy>=2", (ROOT / "constraints.txt").read_text()))
    return path


def run_tests(interpreter: Path, home: Path) -> bool:
    """Install the wheel and run the tests of the client; returns whether they passed.

    Args:
        interpreter: a Python.
        home: an empty folder for its environment.
    """
    subprocess.run([interpreter, "-m", "venv", "--without-pip", home / "venv"], check=True)
    python = home / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    wheel, _ = build_wheel(home / "wheel")
    subprocess.run([*pip, "-c", constraints(home), f"{wheel}[{EXTRAS}]", *TEST_PACKAGES], check=True)

    # PYTHONPATH may lead to the source tree: the client has to be that of the wheel
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/client"]
    collect = [*pytest, "--collect-only"]
    collected = subprocess.run(collect, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    reports = re.split(r"(?m)^_+ ERROR collecting (\S+) _+$", collected.stdout)[1:]
    left_out = []
    for path, report in zip(reports[::2], reports[1::2], strict=True):
        if reason := re.search(rf"(?m)^E +ModuleNotFoundError: (No module named '({NOT_INSTALLED})')", report):
            left_out.append(path)
            print(f"left out: {path}: {reason[1]}", flush=True)
    ignored = [f"--ignore={path}" for path in left_out]
    return subprocess.run([*pytest, *ignored], cwd=ROOT, env=env, check=False).returncode == 0


def main() -> None:
    """Run the tests in all versions, or in those of the command line; the status is 1 if any fail.

    A version of the command line that is not installed has failed.
    """
    failed = []
    asked = sys.argv[1:]
    for version in asked or SUPPORTED:
        found = interpreter(version)
        print(f"== Python {version}: {found or 'not installed'}", flush=True)
        with tempfile.TemporaryDirectory() as name:
            passed = not asked if found is None else run_tests(found, Path(name))
        if not passed:
            failed.append(version)
    if failed:
        raise SystemExit(f"failed in Python {', '.join(failed)}")


if __name__ == "__main__":
    main()
