"""The cases of the parity gate."""

import json
from pathlib import Path

from gomin_export.repository.fingerprint import sampling_modules


def test_the_denoiser_is_tried_at_all_kinds_of_timesteps(repository: Path) -> None:
    names = [case["name"] for case in json.loads((repository / "gomin_denoiser/1/parity.json").read_text())["cases"]]

    alone = {name.partition("t = ")[2] for name in names if name.startswith("1 × 1 ")}
    assert alone == {"0", "24.75", "49"}
    assert any(name.endswith("t = 24.75, 0, 49") for name in names)


def test_the_whole_chain_is_tried(repository: Path) -> None:
    report = json.loads((repository / "gomin_diffusion/1/parity.json").read_text())

    assert [case["name"] for case in report["cases"]] == ["2 × 3 frames, music and clipped noise, ddpm, 50 steps"]
    assert report["cases"][0]["max_abs_error"] <= 1e-5
    assert set(report["files"]) == {
        "model.py",
        "reference.npz",
        *(f"sampling/{path.name}" for path in sampling_modules()),
    }
