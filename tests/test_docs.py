"""The examples in the documentation run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support import ROOT, RunningServer


@pytest.mark.parametrize("page", ["docs/python.md", "docs/streaming.md", "README.md"])
def test_python_examples(page: str, server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which they stand, in one namespace."""
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
