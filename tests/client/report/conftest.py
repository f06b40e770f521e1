"""Three recordings as a reference and in two versions."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 24000


def sweep(seconds: float, from_hz: float) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * (from_hz + 800 * time) * time)).astype(np.float32)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """in/ with a.wav, b.wav and sub/c.wav; good/ and bad/ with less and more noise, most of it in b.wav."""
    rng = np.random.default_rng(0)
    for index, name in enumerate(("a", "b", "sub/c")):
        wave = sweep(0.5 + 0.25 * index, 300 * (index + 1))
        for folder, noise in (("in", 0), ("good", 0.002), ("bad", 0.03)):
            loudness = noise * (4 if name == "b" else 1)
            path = tmp_path / folder / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, wave + rng.normal(0, loudness, len(wave)), RATE, subtype="FLOAT")
    monkeypatch.chdir(tmp_path)
    return tmp_path
