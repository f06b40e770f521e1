"""An imitation of NVIDIA's installation."""

from pathlib import Path


def native_server(root: Path) -> Path:
    """Make an installation under `root`; its tritonserver prints its arguments and exits with 7."""
    (root / "bin").mkdir(parents=True)
    (root / "backends" / "onnxruntime").mkdir(parents=True)
    (root / "backends" / "onnxruntime" / "libtriton_onnxruntime.so").touch()
    program = root / "bin" / "tritonserver"
    program.write_text('#!/bin/sh\necho "pid $$"\nfor word; do echo "argument $word"; done\nexit 7\n')
    program.chmod(0o755)
    return root
