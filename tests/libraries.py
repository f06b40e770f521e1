"""Native libraries of tests, and repositories that name them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.support import tool

_EVIL = """
#include <stdio.h>
static void __attribute__((constructor)) run(void) { fclose(fopen(MARK, "w")); }
"""


def evil_library(home: Path) -> tuple[Path, Path]:
    """A library that runs code when it is loaded, and the file that this code makes."""
    source, made, mark = home / "evil.c", home / "libgomin_ops.so", home / "code was run"
    source.write_text(_EVIL)
    command = [tool("g++"), "-x", "c", "-shared", "-fPIC", f'-DMARK="{mark}"', source, "-o", made]
    subprocess.run(command, check=True)
    return made, mark


def needing(repository: Path, operators: str = "gomin 1", library: str = "libgomin_ops.so") -> None:
    """Change what config.pbtxt of the GAN says about operators and their library."""
    config = repository / "gomin_gan" / "config.pbtxt"
    text = config.read_text()
    for old, new in (
        (r'(gomin\.operators\.1" value: { string_value: ")[^"]*', operators),
        (r'(op_library_filename: ")[^"]*', library),
    ):
        text, count = re.subn(old, lambda found, new=new: found[1] + new, text)
        assert count == 1
    config.write_text(text)
