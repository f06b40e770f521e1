"""Modules of the page in Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from gomin_gateway.page import WEB
from tests.support import tool


def run_in_node(script: Path, given: object, folder: Path) -> Any:
    """What a script answers: JSON on its standard output.

    Args:
        script: a module, .mjs; its argument is a folder with the page's modules.
        given: JSON for its standard input.
        folder: an empty folder.
    """
    modules = folder / "web"
    shutil.copytree(WEB, modules, ignore=shutil.ignore_patterns("*.html", "examples", "vendor"))
    (modules / "package.json").write_text('{"type": "module"}')  # without it, Node 18 takes .js for CommonJS
    result = subprocess.run(
        [tool("node"), str(script), str(modules)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)
