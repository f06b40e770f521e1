"""A folder with the files that the table in docs/client.md speaks of."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from gomin_client.files import mels as mel_files
from gomin_client.mel.features import MelConfig, mel_spectrogram

RATE = 16000


def noise(seed: int, channels: int = 1, samples: int = 4000) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, (samples, channels)).astype(np.float32)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the table in docs/client.md speaks of, in the working directory."""
    pytest.importorskip("torch")  # for the .pt file
    names = (
        "a.wav",
        "b.wav",
        "b.mp3",
        "inputs/input1.wav",
        "inputs/input1.mp3",
        "inputs/input2.wav",
        "inputs/sub/input3.wav",
    )
    for seed, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, noise(seed), RATE)
    mel = mel_spectrogram(noise(9)[:, 0], MelConfig())[np.newaxis]
    mel_files.write(tmp_path / "mel.pt", mel, MelConfig())
    mel_files.write(tmp_path / "mel.npy", mel, MelConfig())
    (tmp_path / "list.txt").write_text("a.wav\ninputs/input2.wav\n")
    (tmp_path / "outputs.txt").write_text("p/one.wav\np/two.wav\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path
