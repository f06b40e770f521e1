"""librosa, loaded by one process at a time.

Parts of librosa are compiled when they are loaded for the first time, and numba stores each generalised ufunc in two
files. Two processes that compile at once can leave files that do not belong together; every later process that calls
such a function crashes (numba, issue 10128). The first two exports after an installation would do that.
"""

from __future__ import annotations

import fcntl
import functools
import importlib
import os
import tempfile
from pathlib import Path
from types import ModuleType

# what has compiled parts, of all that we and the tests call
_COMPILED = ("librosa.util.utils", "librosa.core.audio", "librosa.core.pitch")


@functools.cache
def load_librosa() -> ModuleType:
    """The package librosa. Takes seconds; the first time in an installation, half a minute."""
    lock = Path(tempfile.gettempdir()) / f"gomin-librosa-{os.getuid()}.lock"
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for name in _COMPILED:
            importlib.import_module(name)
        return importlib.import_module("librosa")
