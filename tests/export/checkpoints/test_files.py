"""What a wrong file is, in one sentence; and that no code of a file runs."""

from __future__ import annotations

import argparse
import bz2
import datetime
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gomin_export.checkpoints.files import load_file
from gomin_export.cli import app
from gomin_export.errors import CheckpointError
from gomin_export.networks import GomiGAN
from tests.support import GOLDEN, assert_fails, invoke

State = dict[str, Tensor]


@pytest.fixture
def state() -> State:
    return dict(torch.load(GOLDEN / "gan_v3.pt", weights_only=True))


class Marker:
    """Unpickling this makes a file: proof that code ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], Any], tuple[Path]]:
        return Path.touch, (self.path,)


def make_malicious_torch_file(path: Path, state: State) -> None:
    torch.save(state | {"evil": Marker(path.parent / "code-ran")}, path)


def make_malicious_pickle(path: Path, state: State) -> None:
    path.write_bytes(pickle.dumps(Marker(path.parent / "code-ran"), protocol=2))


def make_malicious_modern_pickle(path: Path, state: State) -> None:
    path.write_bytes(pickle.dumps(Marker(path.parent / "code-ran")))


def make_pickled_module(path: Path, state: State) -> None:
    torch.save(torch.nn.Linear(2, 2), path)


def make_truncated(path: Path, state: State) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-5000])


def make_flipped(path: Path, state: State) -> None:
    torch.save(state, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def make_truncated_safetensors(path: Path, state: State) -> None:
    save_file(state, path)
    path.write_bytes(path.read_bytes()[:-5000])


def make_text(path: Path, state: State) -> None:
    path.write_text("this is not a checkpoint\n")


def make_empty(path: Path, state: State) -> None:
    path.touch()


def make_tensor(path: Path, state: State) -> None:
    torch.save(torch.zeros(3), path)


def make_foreign_network(path: Path, state: State) -> None:
    torch.save({"encoder.weight": torch.zeros(3)}, path)


def make_arrays(path: Path, state: State) -> None:
    torch.save({name: tensor.numpy() for name, tensor in state.items()}, path)


def make_other_network(path: Path, state: State) -> None:
    path.write_bytes((GOLDEN / "diffusion_small.pt").read_bytes())


def make_missing_tensor(path: Path, state: State) -> None:
    del state["ups.1.weight"]
    torch.save(state, path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_malicious_torch_file, ["refused", "the Python object getattr", "could run code"]),
        (make_malicious_pickle, ["refused", "could run code"]),
        (make_pickled_module, ["refused", "torch.nn.modules.linear.Linear", "model.state_dict()"]),
        (make_malicious_modern_pickle, ["is not a checkpoint"]),
        (make_truncated, ["truncated or damaged"]),
        (make_flipped, ["is damaged: the contents of", "do not have their checksum; copy or download it again"]),
        (make_truncated_safetensors, ["truncated or damaged"]),
        (make_text, ["is not a checkpoint"]),
        (make_empty, ["is empty"]),
        (make_tensor, ["contains a Tensor", "state dict"]),
        (make_foreign_network, ["is not a GOMIN gan checkpoint", "encoder.weight"]),
        (make_arrays, ["entry conv_pre.weight is not a tensor"]),
        (make_other_network, ["is a diffusion checkpoint", "gomin-export diffusion"]),
        (make_missing_tensor, ["tensor ups.1.weight is missing"]),
    ],
)
def test_a_wrong_file_gets_one_sentence(
    tmp_path: Path, state: State, make: Callable[[Path, State], None], words: list[str]
) -> None:
    path = tmp_path / "wrong.pt"
    make(path, state)

    with pytest.raises(CheckpointError) as caught:
        GomiGAN.from_pretrained(path)

    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    for word in words:
        assert word in message, message
    assert not (tmp_path / "code-ran").exists()


def test_the_marker_would_show_that_code_ran(tmp_path: Path, state: State) -> None:
    make_malicious_pickle(tmp_path / "evil.pt", state)

    pickle.loads((tmp_path / "evil.pt").read_bytes())

    assert (tmp_path / "code-ran").exists()


def test_the_command_line_ends_with_status_6(tmp_path: Path, state: State) -> None:
    make_malicious_torch_file(tmp_path / "evil.pt", state)

    result = invoke(app, "gan", "--ckpt", tmp_path / "evil.pt", "--repository", tmp_path / "models")

    assert result.returncode == 6
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith(f"gomin-export: {tmp_path / 'evil.pt'}: refused")
    assert not (tmp_path / "code-ran").exists()
    assert not (tmp_path / "models").exists()


def test_a_missing_checkpoint_ends_with_status_6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    result = invoke(app, "diffusion", "--ckpt", "nowhere.pt")

    assert result.returncode == 6
    assert "gomin-export: nowhere.pt: no such file" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a directory"):
        GomiGAN.from_pretrained(tmp_path)
    assert_fails(invoke(app, "gan", "--ckpt", tmp_path, "--config", "nowhere.json"), 2, "nowhere.json")


@pytest.mark.parametrize(
    "extra",
    [
        argparse.Namespace(folder=Path("runs"), lr=1e-4),
        np.float64(0.5),
        np.random.default_rng(0).normal(size=3),
        np.random.RandomState(0).get_state(),  # as trainers save it
        datetime.datetime.now(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_that_trainers_save_beside_the_tensors_are_ignored(tmp_path: Path, state: State, extra: Any) -> None:
    torch.save({"state_dict": state, "extra": extra}, tmp_path / "gan.pt")

    contents = load_file(tmp_path / "gan.pt")

    assert not isinstance(contents["extra"], type(extra)) or isinstance(extra, tuple)
    assert GomiGAN.from_pretrained(tmp_path / "gan.pt").mel_config.n_mels == 128


class AttrDict(dict[str, Any]):
    """The dict of a config, as many vocoders save it: its items are attributes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.__dict__ = self

    def __setstate__(self, _: Any) -> None:
        raise AssertionError("code of the checkpoint's classes ran")


def test_subclasses_of_dict_become_dicts(tmp_path: Path, state: State) -> None:
    torch.save(AttrDict(generator=state, h=AttrDict(hop_size=256)), tmp_path / "gan.pt")

    contents = load_file(tmp_path / "gan.pt")

    assert contents["h"] == {"hop_size": 256}
    assert not isinstance(contents, AttrDict)
    assert not isinstance(contents["h"], AttrDict)
    assert GomiGAN.from_pretrained(tmp_path / "gan.pt").mel_config.n_mels == 128


def test_the_content_decides_about_the_format(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "gan.safetensors")
    save_file(state, tmp_path / "gan.pt")

    for name in ("gan.safetensors", "gan.pt"):
        assert load_file(tmp_path / name).keys() == state.keys()


def test_an_ignored_object_does_not_let_others_in(tmp_path: Path, state: State) -> None:
    evil = {"state_dict": state, "args": argparse.Namespace(a=Marker(tmp_path / "code-ran"))}
    torch.save(evil, tmp_path / "gan.pt")

    with pytest.raises(CheckpointError, match="refused: it contains the Python object"):
        GomiGAN.from_pretrained(tmp_path / "gan.pt")
    assert not (tmp_path / "code-ran").exists()


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("gan.pt"), io.BytesIO())
    return buffer.getvalue()


def onnx_model() -> bytes:
    nodes = [onnx.helper.make_node("Identity", ["a"], ["b"])]
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab"]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", values[:1], values[1:])).SerializeToString()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


DRIVE = b"""<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head>
<body>gan.pt is too large for Google to scan for viruses.</body></html>"""
LFS = b"""version https://git-lfs.github.com/spec/v1
oid sha256:4665a5ea423c2713d436b5ee50593a9640e0018c1550b5a0002f74190d6caea8
size 56780123
"""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (DRIVE, ['web page of Google Drive ("Google Drive - Virus scan warning")', "gdown"]),
        (b"\n <html><title>Sign in\n to  GitHub</title></html>", ['is a web page ("Sign in to GitHub")', "raw file"]),
        (b"\xef\xbb\xbf<!doctype HTML><p>no title", ["is a web page, not a checkpoint"]),
        (b"<!-- saved page --><script>x</script>", ["is a web page"]),
        (b"404: Not Found", ['text file that begins with "404: Not Found"; it is not a checkpoint']),
        (b"[" * 100_000, ["is a JSON file"]),
        (b"<?xml version='1.0'?><net name='g' version='11'>", ["OpenVINO model"]),
        (b"ftrt\0\0\0\1", ["TensorRT engine"]),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", ["XML", "the error AccessDenied"]),
        (b'{"error": "Repository not found"}', ["JSON reply with the error 'Repository not found'"]),
        (b'{"weight_map": {"a": "model-00001.safetensors"}}', ["index of a sharded checkpoint"]),
        (b'{"sampling_rate": 24000}', ["is a JSON file"]),
        (LFS, ["Git LFS pointer to a file of 56780123 bytes", "git lfs pull"]),
        (b"/annex/objects/SHA256E-s56--4665\n", ["git-annex pointer", "git annex get"]),
        (gzip.compress(b"x" * 99), ["compressed by gzip", "unpack it"]),
        (lzma.compress(b"x" * 99), ["compressed by xz"]),
        (bz2.compress(b"x" * 99), ["compressed by bzip2"]),
        (b"\x28\xb5\x2f\xfd\x00\x00", ["compressed by zstd"]),
        (b"7z\xbc\xaf\x27\x1c\x00\x04", ["7-Zip"]),
        (tar(), ["tar archive"]),
        (onnx_model(), ["is an ONNX model"]),
        (npy(), ["NumPy array"]),
        (b"\x89HDF\r\n\x1a\n", ["HDF5"]),
        (b"GGUF\x03\0\0\0", ["GGUF"]),
        (b"RIFF\x24\0\0\0WAVEfmt ", ["sound file"]),
        (bytes(range(256)) * 9, ["is not a checkpoint"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_wrong_file_is_named(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "gan.pt"
    path.write_bytes(content)

    with pytest.raises(CheckpointError) as caught:
        GomiGAN.from_pretrained(path)

    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 400
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"a/data.pkl": b"", "a/constants.pkl": b"", "a/code/x.py": b""}, "TorchScript archive"),
        ({"x.npy": npy()}, r"NumPy archive \(\.npz\)"),
        (
            {"release/gan.pth": b"", "README": b""},
            r"zip archive: unpack it and give the checkpoint in it, release/gan\.pth",
        ),
        ({"config.json": b"{}", "model.weights.h5": b""}, "zip archive of 2 files, but not a checkpoint"),
        ({}, "zip archive of 0 files"),
    ],
)
def test_other_archives_are_named(tmp_path: Path, members: dict[str, bytes], words: str) -> None:
    archive(tmp_path / "gan.pt", members)

    with pytest.raises(CheckpointError, match=words):
        GomiGAN.from_pretrained(tmp_path / "gan.pt")


@pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning")
def test_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "gan.pt"))

    with pytest.raises(CheckpointError, match="is a TorchScript archive, which contains code"):
        GomiGAN.from_pretrained(tmp_path / "gan.pt")


def test_an_archive_that_unpacks_to_much_more_is_refused_unread(tmp_path: Path) -> None:
    archive(tmp_path / "bomb.pt", {"a/data.pkl": b"", "a/data/0": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)

    with pytest.raises(
        CheckpointError, match=r"bomb\.pt: is refused: an archive of \d{5} bytes that unpacks to 5\d{7} bytes"
    ):
        GomiGAN.from_pretrained(tmp_path / "bomb.pt")


def test_a_compressed_archive_of_weights_loads(tmp_path: Path, state: State) -> None:
    """People zip checkpoints again; torch reads these too."""
    torch.save(state, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as file:
        archive(tmp_path / "b.pt", {name: file.read(name) for name in file.namelist()}, zipfile.ZIP_DEFLATED)

    network = GomiGAN.from_pretrained(tmp_path / "b.pt")

    torch.testing.assert_close(network.conv_pre.weight, state["conv_pre.weight"], rtol=0, atol=0)


def test_a_storage_that_is_smaller_than_its_record_says_is_refused(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = next(name for name in members if "/data/" in name and len(members[name]) > 1000)
    archive(tmp_path / "b.pt", members | {name: members[name][:16]})

    with pytest.raises(CheckpointError, match=r"b\.pt: is truncated or damaged: record size \(16 bytes\)"):
        GomiGAN.from_pretrained(tmp_path / "b.pt")


def test_directories_are_named(tmp_path: Path, state: State) -> None:
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"is a directory; expected a checkpoint file, such as .*/model\.safetensors"
    ):
        GomiGAN.from_pretrained(tmp_path)

    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/data.pkl").touch()
    with pytest.raises(CheckpointError, match="is the unpacked archive of a checkpoint; give the archive itself"):
        GomiGAN.from_pretrained(tmp_path)

    (tmp_path / ".metadata").touch()
    with pytest.raises(CheckpointError, match=r"checkpoint of torch\.distributed: convert it into one file"):
        GomiGAN.from_pretrained(tmp_path)


def test_a_device_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="/dev/zero: is not a regular file"):
        GomiGAN.from_pretrained("/dev/zero")
