"""The way of a recording through the program is short: code of ours that runs while `reconstruct` makes one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

from gomin_client import MockModel, MockTransport, Vocoder
from gomin_client.batch.outputs import RECONSTRUCT, FileJob
from gomin_client.batch.tasks import Batch, BatchSettings, reconstruct
from gomin_client.mel import features
from tests.support import ROOT, RunningServer
from tests.walks import Walk

MOST_FILES = 15
MOST_FUNCTIONS = 107  # with those that run if the server is busy and a request is repeated
MOST_FILES_OF_A_COMMAND = 32
MOST_FUNCTIONS_OF_A_COMMAND = 241


def walk(tmp_path: Path, vocoder: Vocoder) -> Walk:
    """What runs from the opening of one recording to the rename of its output."""
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 44100), 44100)
    job = FileJob(tmp_path / "a.wav", tmp_path / "b.wav", RECONSTRUCT)
    with vocoder, Walk("AudioReader.__init__", os.replace) as walked:
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
    features.mel_filters.cache_clear()
    features.hann_window.cache_clear()
    # the longest way: a program that has just started loads so much that the model is compared with its description
    vocoder._transport._answered_at = float("-inf")  # type: ignore[attr-defined]

    walked = walk(tmp_path, vocoder)

    called = {name for _, name in walked.functions}
    assert {"GrpcTransport.infer", "GrpcTransport._config", "mel_filters", "_cut"} <= called
    assert len(walked.files) <= MOST_FILES, sorted(walked.files)
    assert len(walked.functions) <= MOST_FUNCTIONS, sorted(walked.functions)


def test_the_walk_of_a_whole_command(tmp_path: Path, server: RunningServer) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 44100), 44100)
    command = [sys.executable, ROOT / "tests/walks.py", "reconstruct", tmp_path / "a.wav", "--url", server.grpc]

    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)

    assert soundfile.info(tmp_path / "a_gan.wav").frames == 24000
    functions = {line for line in result.stdout.splitlines() if ".py " in line}
    files = {line.partition(" ")[0] for line in functions}
    assert {"cli/main.py main", "files/atomic.py atomic_write", "transports/grpc.py GrpcTransport.infer"} <= functions
    assert len(files) <= MOST_FILES_OF_A_COMMAND, sorted(files)
    assert len(functions) <= MOST_FUNCTIONS_OF_A_COMMAND, sorted(functions)
