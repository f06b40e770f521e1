"""The way of a recording through the program is short: code of ours that runs while `reconstruct` makes one."""

from __future__ import annotations

import inspect
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
from gomin_client.mel import features
from tests.support import ROOT, RunningServer

MOST_FILES = 15
MOST_FUNCTIONS = 90
OURS = str(ROOT / "clients/gomin_client")


class Walk:
    """Functions of ours that are called, in any thread, from the opening of an input to its output's rename.

    Bodies of classes and modules, comprehensions and what is generated for dataclasses do not count.
    """

    def __init__(self) -> None:
        self.functions: set[tuple[str, str]] = set()
        self._on_the_way = False

    @property
    def files(self) -> set[str]:
        return {file for file, _ in self.functions}

    def __enter__(self) -> Walk:
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _note(self, frame: FrameType, event: str, function: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(OURS):
            self._on_the_way |= code.co_qualname == "AudioReader.__init__"
            is_function = code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")
            if self._on_the_way and is_function:
                self.functions.add((Path(code.co_filename).relative_to(OURS).as_posix(), code.co_qualname))
        elif event == "c_call" and function is os.replace:
            self._on_the_way = False


def walk(tmp_path: Path, vocoder: Vocoder) -> Walk:
    """What runs while one recording is made."""
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 44100), 44100)
    job = FileJob(tmp_path / "a.wav", tmp_path / "b.wav", RECONSTRUCT)
    with vocoder, Walk() as walked:
        reconstruct(job, Batch(vocoder, vocoder.contract.mel, BatchSettings()))
    assert soundfile.info(tmp_path / "b.wav").frames == 24000
    assert {"files/atomic.py", "mel/resampling.py", "inference/windows.py", "inference/stream.py"} <= walked.files
    return walked


def test_the_walk_of_a_recording(tmp_path: Path) -> None:
    silence = MockModel.vocoder(lambda mel: np.zeros((len(mel), 256 * mel.shape[-1]), np.float32))

    files = walk(tmp_path, Vocoder(MockTransport({"gomin_gan": silence}), window=80)).files

    assert "transports/mock.py" in files
    assert len(files) <= MOST_FILES, sorted(files)


def test_the_walk_of_the_first_recording_over_grpc(tmp_path: Path, server: RunningServer) -> None:
    vocoder = Vocoder(server.grpc, window=80)
    features._filters.cache_clear()
    features._window.cache_clear()
    # the longest way: a program that has just started loads so much that the model is compared with its description
    vocoder._transport._answered_at = float("-inf")  # type: ignore[attr-defined]

    walked = walk(tmp_path, vocoder)

    called = {name for _, name in walked.functions}
    assert {"GrpcTransport.infer", "GrpcTransport._config", "_filters", "vocode.<locals>.feed"} <= called
    assert len(walked.files) <= MOST_FILES, sorted(walked.files)
    assert len(walked.functions) <= MOST_FUNCTIONS, sorted(walked.functions)
