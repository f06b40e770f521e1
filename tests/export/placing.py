"""Exports whose ONNX file is there already: what is not about tracing need not trace, which takes ten seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest

from gomin_export.onnx import export as onnx_export
from gomin_export.onnx.forms import OnnxForm


def use_model(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    """Let exports take this file instead of tracing the network; the parity gate tests it as any other."""

    def write(_form: OnnxForm, path: Path, metadata: Mapping[str, str]) -> None:
        proto = onnx.load(model)
        onnx.helper.set_model_props(proto, dict(sorted(metadata.items())))
        onnx_export._save(proto, path)

    monkeypatch.setattr(onnx_export, "write", write)
