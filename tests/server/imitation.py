"""An imitation of NVIDIA's installation."""

import sys
from pathlib import Path

PRINT_ARGUMENTS = """
import sys
print(*(f"argument {word}" for word in sys.argv[1:]), sep="\\n")
sys.exit(7)
"""


def native_server(root: Path, program: str = PRINT_ARGUMENTS) -> Path:
    """Make an installation under `root`; its tritonserver is a Python program."""
    (root / "bin").mkdir(parents=True)
    (root / "backends" / "onnxruntime").mkdir(parents=True)
    (root / "backends" / "onnxruntime" / "libtriton_onnxruntime.so").touch()
    tritonserver = root / "bin" / "tritonserver"
    (root / "bin" / "program.py").write_text(program)
    # through a shell, since "#!" takes no path with a space
    tritonserver.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$(dirname "$0")/program.py" "$@"\n')
    tritonserver.chmod(0o755)
    return root
