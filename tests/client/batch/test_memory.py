"""Files of any length: memory, and mels that do not depend on blocks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gomin_client.cli.main import app
from gomin_client.mel.features import mel_spectrogram
from tests.support import invoke

# VmHWM belongs to the program alone; ru_maxrss of a child begins with what the process that forked it has taken
MEASURED = """
import sys
from pathlib import Path
from gomin_client.cli.main import main
try:
    main()
finally:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(line.split()[1], file=sys.stderr)
"""


@pytest.mark.slow
def test_memory_does_not_grow(tiny_repository: Path, tmp_path: Path) -> None:
    """Five minutes of audio are 29 MB as float32, and in most other forms on the way."""
    peaks = []
    for minutes in (0.5, 5):
        source = tmp_path / "a.flac"
        soundfile.write(source, np.zeros(int(minutes * 60 * 8000), np.float32), 8000)
        command = [sys.executable, "-c", MEASURED, "reconstruct", source, "-o", tmp_path / "b.wav"]
        command += ["--url", f"local:{tiny_repository}", "--quiet"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        peaks.append(int(result.stderr) / 1024)
    assert peaks[1] - peaks[0] < 20, f"MiB: {peaks}"


def test_the_mel_of_a_file_does_not_depend_on_how_it_is_read(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, 300_000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 24000, subtype="FLOAT")

    assert invoke(app, "analyze", tmp_path / "a.wav", "-o", tmp_path / "a.npy").returncode == 0

    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), mel_spectrogram(wave), rtol=0, atol=1e-5)
