"""One file at a time: what a task makes and reports of it, and how it is aborted."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from gomin_client.batch.outputs import ANALYZE, FileJob
from gomin_client.batch.tasks import AbortedError, Batch, BatchSettings, analyze
from gomin_client.errors import SuspiciousAudioError
from gomin_client.files import mels
from gomin_client.mel.features import MelConfig, mel_spectrogram


@pytest.fixture
def job(tmp_path: Path) -> FileJob:
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, (24000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 24000, subtype="FLOAT")
    return FileJob(tmp_path / "a.wav", tmp_path / "a.npz", ANALYZE)


@pytest.mark.parametrize("all_channels", [False, True])
def test_analyze(job: FileJob, all_channels: bool) -> None:
    made = analyze(job, Batch(None, MelConfig(), BatchSettings(all_channels=all_channels)))

    assert (made.seconds, made.warning, made.column) == (1.0, "", None)
    wave = soundfile.read(job.source, dtype="float32")[0]
    channels = wave.T if all_channels else wave.mean(axis=1)[np.newaxis]
    expected = [mel_spectrogram(channel, MelConfig()) for channel in channels]
    np.testing.assert_allclose(mels.read(job.target).mel, expected, rtol=0, atol=1e-6)


def test_audio_far_beyond_full_scale_is_refused(job: FileJob) -> None:
    wave = np.zeros((3 * 65536, 1), np.float32)
    wave[-5:] = 32767
    soundfile.write(job.source, wave, 24000, subtype="FLOAT")

    with pytest.raises(SuspiciousAudioError, match="reaches 32767, far beyond full scale"):
        analyze(job, Batch(None, MelConfig(), BatchSettings()))
    assert not job.target.exists()

    analyze(job, Batch(None, MelConfig(), BatchSettings(force=True)))
    assert job.target.exists()


def test_an_aborted_batch_leaves_no_file(job: FileJob) -> None:
    batch = Batch(None, MelConfig(), BatchSettings())
    batch.aborted.set()

    with pytest.raises(AbortedError):
        analyze(job, batch)

    assert [path.name for path in job.source.parent.iterdir()] == ["a.wav"]
