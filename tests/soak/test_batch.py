"""A batch of files while processes of the server are killed; the long one is make soak-batch."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.soak.batch import FAULTS, differences, run


@pytest.mark.server
@pytest.mark.slow
def test_no_file_is_lost_while_processes_are_killed(tiny_repository: Path, tmp_path: Path) -> None:
    result = run(tiny_repository, tmp_path, files=72, kills=1)

    assert result.problems == []
    assert result.faults == dict.fromkeys(FAULTS, 1)


def test_what_is_lost_or_differs_is_noticed(tmp_path: Path) -> None:
    for folder in ("expected", "found"):
        (tmp_path / folder).mkdir()
        for number, name in enumerate(("same", "longer", "other")):
            samples = np.full(100 + number * (folder == "found") * (name == "longer"), 0.25, np.float32)
            samples[50] += 0.001 if folder == "found" and name == "other" else 0.0
            soundfile.write(tmp_path / folder / f"{name}.wav", samples, 24000, subtype="FLOAT")
    soundfile.write(tmp_path / "expected" / "missing.wav", np.zeros(100), 24000)

    assert differences(tmp_path / "expected", tmp_path / "found", 5) == [
        "4 files without faults, expected 5",
        "longer.wav has 101 samples, expected 100",
        "missing.wav is missing",
        "other.wav differs by 0.001",
    ]
