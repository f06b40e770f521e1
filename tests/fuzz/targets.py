"""The fuzzed functions of bytes. Any outcome except a result or a `GominError` is a defect."""

from __future__ import annotations

import os
import tempfile
import wave as wavefile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

from gomin_client.batch.inputs import STREAM, find_sources
from gomin_client.batch.outputs import Naming, find_outputs, plan_jobs
from gomin_client.contract import repository as model_repository
from gomin_client.contract.model import ModelContract
from gomin_client.errors import GominError
from gomin_client.files import audio
from gomin_client.files import mels as mel_files
from gomin_client.mel.scales import CONVENTIONS, suspicion, to_gomin
from gomin_client.transports import registry
from gomin_client.transports.connection import parse_headers

FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("FLAC", "PCM_16"),
    ("AIFF", "PCM_24"),
    ("OGG", "VORBIS"),
    ("MP3", "MPEG_LAYER_III"),
    ("AU", "ULAW"),
    ("CAF", "ALAC_16"),
]


def mel_file(extension: str, content: bytes) -> None:
    """Read a mel file, doubt it and convert it."""
    with tempfile.TemporaryDirectory() as home:
        path = Path(home, f"a{extension}")
        path.write_bytes(content)
        try:
            loaded = mel_files.read(path, transpose=len(content) % 2 == 1)
        except GominError as error:
            _check_message(error, path)
            return
    assert loaded.mel.ndim == 3
    assert loaded.mel.size
    try:
        blocks = list(loaded.blocks())
    except GominError as error:
        _check_message(error, path)
        return
    assert sum(block.shape[-1] for block in blocks) == loaded.mel.shape[-1]
    assert all(block.dtype == np.float32 and np.isfinite(block).all() for block in blocks)
    suspicion(blocks[0])
    try:
        converted = to_gomin(blocks[0], CONVENTIONS[len(content) % len(CONVENTIONS)])
    except GominError:
        return
    assert converted.shape == blocks[0].shape
    assert np.isfinite(converted).all()


def audio_file(content: bytes) -> None:
    """Read an audio file and mix it down."""
    with tempfile.TemporaryDirectory() as home:
        path = Path(home, "a.wav")
        path.write_bytes(content)
        try:
            recording = audio.read(path)
        except GominError as error:
            _check_message(error, path)
            return
    assert recording.rate > 0
    assert recording.samples.size
    mono = recording.mono()
    assert mono.shape == (1, recording.samples.shape[1])
    assert np.isfinite(mono).all()


def path_forms(content: bytes) -> None:
    """Find inputs and plan outputs, from arguments in lines: inputs, an empty line, outputs."""
    text = os.fsdecode(content)
    given, _, wanted = text.partition("\n\n")
    kinds = ("audio", "mel")
    with tempfile.TemporaryDirectory() as home:
        for name in ("a.wav", "b.npy", "sub/c.flac", "list.txt"):
            path = Path(home, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if name == "list.txt" else b"")
        before = os.getcwd()
        os.chdir(home)  # relative forms lead nowhere else
        try:
            inputs = [line for line in given.split("\n") if not line.startswith(("/", "~")) and ".." not in line]
            sources = find_sources(inputs, kinds).sources
            outputs = [line for line in wanted.split("\n") if line]
            jobs = plan_jobs(sources, find_outputs(outputs), Naming(".wav", label="gan"))
            targets = [os.path.normpath(job.target) for job in jobs if job.target != STREAM]
            assert len(set(targets)) == len(targets), "two inputs, one output"
            assert not {os.path.normpath(job.source) for job in jobs} & set(targets), "an output that is an input"
        except GominError as error:
            _check_message(error)
        finally:
            os.chdir(before)


def model_config(content: bytes) -> None:
    """Read the config.pbtxt of a repository that somebody edited."""
    with tempfile.TemporaryDirectory() as home:
        path = Path(home, "config.pbtxt")
        path.write_bytes(content)
        try:
            ModelContract.from_parameters("m", model_repository.read_config(path))
        except GominError as error:
            _check_message(error)


def command_line_words(content: bytes) -> None:
    """URLs and headers."""
    text = content.decode("utf-8", "surrogateescape")

    def take_apart() -> None:
        parsed = registry.parse(text)
        assert registry.parse(parsed.url) == parsed
        if parsed.has_host:
            host, port = parsed.host_and_port
            assert host
            assert 0 < port < 65536

    for parse in (take_apart, lambda: parse_headers([text.lstrip("@")])):
        try:
            parse()
        except GominError as error:
            _check_message(error)


def _check_message(error: GominError, path: Path | None = None) -> None:
    message = str(error)
    assert message
    assert "Traceback" not in message
    if path is not None:
        assert path.name in message
        assert len(message) < 2000


def seeds() -> dict[str, tuple[Callable[[bytes], None], list[bytes]]]:
    """Name of a target → itself, and valid inputs to begin with."""
    mel = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
    npy, npz = BytesIO(), BytesIO()
    np.save(npy, mel)
    np.savez(npz, melspec=mel[np.newaxis], n_mels=4, sample_rate=24000, win_length=1024, hop_length=256)
    recordings = []
    for file_format, subtype in FORMATS:
        file = BytesIO()
        wave = np.sin(np.arange(1600) / 9)[:, np.newaxis] * [1, 0.5]
        soundfile.write(file, wave, 16000, subtype, format=file_format)
        recordings.append(file.getvalue())
    extensible = BytesIO()
    with wavefile.open(extensible, "wb") as odd:
        odd.setnchannels(7)
        odd.setsampwidth(3)
        odd.setframerate(1)
        odd.writeframes(bytes(210))
    config = b'name: "m" max_batch_size: 4\nparameters { key: "gomin.kind" value: { string_value: "gan" } }\n'
    return {
        "npy": (lambda content: mel_file(".npy", content), [npy.getvalue()]),
        "npz": (lambda content: mel_file(".npz", content), [npz.getvalue()]),
        "pt": (lambda content: mel_file(".pt", content), [_torch_file(mel)]),
        "audio": (audio_file, [*recordings, extensible.getvalue()]),
        "paths": (path_forms, [b"*.wav\nsub/\n\nout/**/*.wav", b"list.txt\n\nout/", b"a.wav\n-\n\nx.wav\nlist.txt"]),
        "config": (model_config, [config]),
        "words": (command_line_words, [b"grpc://[::1]:8001", b"dns:///a:1", b"local:x", b"Name: value"]),
    }


def _torch_file(mel: np.ndarray) -> bytes:
    import torch

    file = BytesIO()
    torch.save({"melspec": torch.from_numpy(mel[np.newaxis].copy()), "n_mels": 4}, file)
    return file.getvalue()
