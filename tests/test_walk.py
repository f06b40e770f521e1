"""The way of a recording through the program is short: files of ours that are crossed while `reconstruct` makes one."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import FrameType

import numpy as np
import soundfile

from gomin_client import MockModel, MockTransport, Vocoder
from gomin_client.batch.outputs import RECONSTRUCT, FileJob
from gomin_client.batch.tasks import Batch, BatchSettings, reconstruct
from tests.support import ROOT

MOST_FILES = 15
OURS = str(ROOT / "clients/gomin_client")


class Walk:
    """Files of ours whose functions are called, in any thread, from the opening of an input to its output's rename."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self._on_the_way = False

    def __enter__(self) -> Walk:
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _note(self, frame: FrameType, event: str, function: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            self._on_the_way |= frame.f_code.co_qualname == "AudioReader.__init__"
            if self._on_the_way:
                self.files.add(Path(frame.f_code.co_filename).relative_to(OURS).as_posix())
        elif event == "c_call" and function is os.replace:
            self._on_the_way = False


def test_the_walk_of_a_recording(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 44100), 44100)
    silence = MockModel.vocoder(lambda mel: np.zeros((len(mel), 256 * mel.shape[-1]), np.float32))
    job = FileJob(tmp_path / "a.wav", tmp_path / "b.wav", RECONSTRUCT)

    def walk() -> Walk:
        with Vocoder(MockTransport({"gomin_gan": silence}), window=80) as vocoder, Walk() as walk:
            reconstruct(job, Batch(vocoder, vocoder.contract.mel, BatchSettings()))
        return walk

    walk()  # loads what is loaded once
    files = walk().files

    assert soundfile.info(tmp_path / "b.wav").frames == 24000
    assert {"files/atomic.py", "mel/resampling.py", "inference/windows.py", "transports/mock.py"} <= files
    assert len(files) <= MOST_FILES, sorted(files)
