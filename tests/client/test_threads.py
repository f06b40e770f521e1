"""A system that gives no more threads: a limit of processes or of memory, as containers have it."""

import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gomin_client import Vocoder
from gomin_client.batch.outputs import ANALYZE, RECONSTRUCT, FileJob
from gomin_client.batch.run import DONE, FAILED, run_jobs
from gomin_client.batch.tasks import BatchSettings
from gomin_client.errors import GominError
from gomin_client.mel.features import MelConfig

WORDS = "the system gives this process no more threads"


@pytest.fixture
def most(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list whose number is how many more threads may be started."""
    start, left = threading.Thread.start, [0]

    def limited(thread: threading.Thread) -> None:
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    return left


def jobs(folder: Path, task: str, extension: str) -> list[FileJob]:
    for name in "abc":
        soundfile.write(folder / f"{name}.wav", np.full(2400, 0.1), 24000)
    return [FileJob(folder / f"{name}.wav", folder / f"{name}_out{extension}", task) for name in "abc"]


def test_fewer_threads_than_asked_for(tmp_path: Path, most: list[int]) -> None:
    most[0] = 1
    outcomes = run_jobs(jobs(tmp_path, ANALYZE, ".npz"), None, MelConfig(), BatchSettings(parallel=3))
    assert [outcome.status for outcome in outcomes] == [DONE] * 3


def test_no_threads_at_all(tmp_path: Path, most: list[int]) -> None:
    with pytest.raises(GominError, match=WORDS):
        run_jobs(jobs(tmp_path, ANALYZE, ".npz"), None, MelConfig(), BatchSettings(parallel=3))
    assert not most[0]


def test_each_file_fails_for_itself(tmp_path: Path, repository: Path, most: list[int]) -> None:
    with Vocoder(f"local:{repository}") as vocoder:
        made = jobs(tmp_path, RECONSTRUCT, ".wav")
        most[0] = 1
        outcomes = run_jobs(made, vocoder, MelConfig(), BatchSettings(parallel=1))

        assert [outcome.status for outcome in outcomes] == [FAILED] * 3
        assert all(WORDS in outcome.reason and str(outcome.job.source) in outcome.reason for outcome in outcomes)
        assert not list(tmp_path.glob("*_out*"))

        most[0] = 9
        assert {outcome.status for outcome in run_jobs(made, vocoder, MelConfig(), BatchSettings())} == {DONE}
