"""Hatch build hook: the custom-operator library as part of the wheel, if a C++ compiler is at hand.

Without a compiler, or with GOMIN_BUILD_NATIVE=0, the wheel is pure Python and everything but `--target native` works.
"""

from __future__ import annotations

import importlib.util
import os
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SWITCH = "GOMIN_BUILD_NATIVE"


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds the library: into the source tree for an editable install, beside it and into the wheel otherwise."""

    temporary: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See `BuildHookInterface.initialize`."""
        if self.target_name != "wheel":
            return
        switch = os.environ.get(SWITCH, "1")
        if switch not in ("0", "1"):
            self.app.abort(f"{SWITCH}={switch}: expected 0 (pure Python) or 1")
        builder = _load(Path(self.root) / "native" / "build.py")
        editable = version == "editable"
        if editable:
            builder.remove()  # one from before would be used although it is not of these sources
        if switch == "0":
            return
        if not editable:
            self.temporary = tempfile.TemporaryDirectory(prefix="gomin-wheel-")
        try:
            files = builder.build(Path(self.temporary.name)) if self.temporary else builder.build()
        except builder.BuildError as error:
            self.app.display_warning(f"the wheel has no custom operators, for --target native: {error}")
            return
        if not editable:
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
            for path in files:
                build_data["force_include"][str(path)] = f"gomin_client/native/{path.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """See `BuildHookInterface.finalize`."""
        if self.temporary:
            self.temporary.cleanup()


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gomin_native_build", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
