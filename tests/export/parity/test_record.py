"""What an export records beside its models."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from gomin_export.onnx import export as onnx_export
from gomin_export.parity import record
from tests.support import SHARED_GAN


def test_parity_json_tells_what_was_compared(repository: Path) -> None:
    report = json.loads((repository / "gomin_gan/1/parity.json").read_text())

    assert report["passed"] is True
    assert report["checkpoint_sha256"] == record.sha256(SHARED_GAN)
    assert report["files"] == {
        name: record.sha256(repository / "gomin_gan/1" / name) for name in ("model.onnx", "reference.npz")
    }
    assert report["precision"] == "fp32"
    assert list(report["execution_providers"]) == ["CPUExecutionProvider"]
    assert report["execution_providers"]["CPUExecutionProvider"] > 100  # operators
    assert {"torch", "onnx", "gomin-triton"} <= set(report["recipe"]["packages"])
    assert report["recipe"]["opset"] == onnx_export.OPSET
    assert report["tolerance"] == {"atol": 1e-5, "min_snr_db": None, "times_torch_float32_error": 4}
    names = [case["name"] for case in report["cases"]]
    assert len(names) == len(set(names)) == 21  # the last is windows against the whole
    for word in ("1 × 1 frame, silence", "clipped noise", "music", "uniform in 0 … 1.2", "normal"):
        assert any(word in name for name in names)
    assert all(case["passed"] and case["snr_db"] > 40 and case["max_abs_error"] > 0 for case in report["cases"])


def test_reports_can_be_read_back(repository: Path) -> None:
    for expected in record.read_vectors(repository / "gomin_denoiser/1"):
        assert set(expected.inputs) == {"signal", "timestep", "mel"}
        assert expected.output.dtype == np.float64
        assert dataclasses.replace(expected, name="x").torch_error > 0
