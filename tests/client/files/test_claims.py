"""Small mel files that claim to be large: refused before memory is allocated or anything is inflated."""

import io
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gomin_client.errors import FileError
from gomin_client.files import mels

HUGE = (128, 1 << 50)


def read(path: Path) -> None:
    for _ in mels.read(path).blocks():
        pass


def npy(shape: tuple[int, ...], data: bytes = b"", descr: Any = "<f4") -> bytes:
    stream = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)  # type: ignore[no-untyped-call]
    return stream.getvalue() + data


def npz(path: Path, content: bytes, compression: int = zipfile.ZIP_DEFLATED, name: str = "melspec.npy") -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(name, content)


def sparse() -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.zeros(2, 1), torch.ones(1), HUGE, check_invariants=True)


class TestTorch:
    @pytest.mark.parametrize(
        ("tensor", "words"),
        [
            (lambda: torch.zeros(1).expand(*HUGE), r"its mel has shape \(128, 1125899906842624\), which takes"),
            (lambda: torch.zeros(1, 1).as_strided((1000, 1000), (0, 0)), "and the file has 4 bytes of it"),
            (lambda: torch.zeros(1999).as_strided((1000, 1000), (1, 1)), "and the file has 7996 bytes of it"),
            (lambda: torch.zeros(HUGE, device="meta"), "its mel has no values: it was saved on the meta device"),
            (
                lambda: torch.sparse_coo_tensor(torch.zeros(2, 1), torch.ones(1), HUGE, check_invariants=True),
                "not a plain tensor of numbers",
            ),
            (lambda: torch.zeros(80, 5, dtype=torch.complex64), r"its mel is of type torch\.complex64"),
            (lambda: torch.zeros(80, 5, dtype=torch.bool), r"its mel is of type torch\.bool"),
        ],
    )
    @pytest.mark.parametrize("old_format", [False, True])
    def test_values_that_are_not_in_the_file(
        self, tmp_path: Path, tensor: Callable[[], torch.Tensor], words: str, old_format: bool
    ) -> None:
        torch.save({"melspec": tensor()}, tmp_path / "a.pt", _use_new_zipfile_serialization=not old_format)
        assert (tmp_path / "a.pt").stat().st_size < 20000

        with pytest.raises(FileError, match=words):
            read(tmp_path / "a.pt")

    def test_an_archive_that_inflates(self, tmp_path: Path) -> None:
        torch.save({"melspec": torch.zeros(128, 1 << 18)}, tmp_path / "a.pt")
        with (
            zipfile.ZipFile(tmp_path / "a.pt") as stored,
            zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as deflated,
        ):
            for member in stored.infolist():
                deflated.writestr(member.filename, stored.read(member))

        with pytest.raises(FileError, match=r"b\.pt: is an archive of \d+ bytes that unpacks to 13\d+ bytes"):
            read(tmp_path / "b.pt")

    def test_a_setting_that_cannot_be_printed(self, tmp_path: Path) -> None:
        bomb: list[Any] = []
        for _ in range(60):
            bomb = [bomb, bomb]
        settings = dict.fromkeys(mels.SETTINGS, 80)
        for value in (bomb, 10**200, torch.zeros(1).expand(*HUGE)):
            torch.save({"melspec": torch.zeros(80, 5), **settings, "hop_length": value}, tmp_path / "a.pt")
            with pytest.raises(FileError, match=r"its hop_length is a value of type .*; expected a whole number"):
                read(tmp_path / "a.pt")

    @pytest.mark.parametrize("old_format", [False, True])
    def test_a_key_whose_hash_takes_forever(self, tmp_path: Path, old_format: bool) -> None:
        key: tuple[Any, ...] = (1,)
        for _ in range(21):  # deep enough to be refused, and no deeper than pickling it can take
            key = (key, key)
        torch.save({key: 1}, tmp_path / "a.pt", _use_new_zipfile_serialization=not old_format)

        with pytest.raises(FileError, match=r"shares 21 tuples, which is refused"):
            read(tmp_path / "a.pt")

    def test_views_of_a_larger_tensor_are_read(self, tmp_path: Path) -> None:
        whole = torch.rand(100, 200)
        torch.save({"melspec": whole[:80, ::2].T.contiguous().T}, tmp_path / "a.pt")
        torch.save(whole[10:90, 5:50], tmp_path / "b.pt")
        for name, expected in (("a.pt", whole[:80, ::2]), ("b.pt", whole[10:90, 5:50])):
            np.testing.assert_array_equal(mels.read(tmp_path / name).mel[0], expected.numpy())


class TestNumpy:
    @pytest.mark.parametrize("shape", [HUGE, (128, 1 << 20), (1 << 31, 1 << 31)])
    def test_a_header_of_more_than_there_is(self, tmp_path: Path, shape: tuple[int, int]) -> None:
        (tmp_path / "a.npy").write_bytes(npy(shape, bytes(1000)))
        npz(tmp_path / "a.npz", npy(shape, bytes(1000)))

        for name in ("a.npy", "a.npz"):
            with pytest.raises(FileError, match=rf"{name}: is truncated or damaged: .* takes \d+ bytes"):
                read(tmp_path / name)

    def test_a_member_that_inflates_much(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gomin_client.files.numpy_files._INFLATED_FREELY", 1 << 20)
        np.savez_compressed(tmp_path / "zeros.npz", melspec=np.zeros((128, 10000), np.float32))
        np.savez(tmp_path / "stored.npz", melspec=np.zeros((128, 10000), np.float32))
        noise = np.random.default_rng(0).uniform(0, 1, (128, 10000)).astype(np.float32)
        np.savez_compressed(tmp_path / "noise.npz", melspec=noise)

        with pytest.raises(
            FileError, match=r"its melspec would be inflated from \d+ to 5120128 bytes, which is refused"
        ):
            read(tmp_path / "zeros.npz")
        read(tmp_path / "stored.npz")
        read(tmp_path / "noise.npz")

    def test_a_header_that_inflates(self, tmp_path: Path) -> None:
        npz(tmp_path / "a.npz", b"\x93NUMPY\x02\x00" + struct.pack("<I", 200 << 20) + b" " * (200 << 20))

        program = (
            "import sys, resource\n"
            "from pathlib import Path\n"
            "from gomin_client.files import mels\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "try:\n    mels.read(Path(sys.argv[1]))\n"
            "except Exception as error:\n    print(type(error).__name__)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        )
        command = [sys.executable, "-c", program, tmp_path / "a.npz"]
        name, grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

        assert name == "FileError"
        assert int(grown) < 50 << 10  # KiB

    def test_a_header_that_python_cannot_parse(self, tmp_path: Path) -> None:
        header = ("{'descr': '<f4', 'fortran_order': False, 'shape': " + "-" * 9000 + "1}\n").encode()
        (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        with pytest.raises(FileError, match=r"its array has a header that cannot be parsed"):
            read(tmp_path / "a.npy")

    def test_objects_and_other_compression(self, tmp_path: Path) -> None:
        npz(tmp_path / "a.npz", npy((80, 5), bytes(4000), descr="|O"))
        with pytest.raises(FileError, match=r"is not a numpy file of numbers: its melspec has objects"):
            read(tmp_path / "a.npz")
        npz(tmp_path / "b.npz", npy((80, 5), bytes(1600)), compression=zipfile.ZIP_BZIP2)
        with pytest.raises(FileError, match=r"compressed in another way than numpy's"):
            read(tmp_path / "b.npz")

    def test_a_table_of_contents_that_takes_much_memory(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            for number in range(10_000):
                archive.writestr(f"{number:060}", b"")
        for comment in (b"", b"of the archive"):
            with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
                archive.comment = comment
            with pytest.raises(
                FileError, match=r"is not a mel: an archive whose table of contents takes 1060000 bytes"
            ):
                read(tmp_path / "a.npz")

    def test_a_table_of_contents_of_a_large_archive(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("zipfile.ZIP_FILECOUNT_LIMIT", 0)  # its place is then described by 64-bit numbers
        np.savez(tmp_path / "a.npz", melspec=np.zeros((80, 5), np.float32))
        assert b"PK\x06\x07" in (tmp_path / "a.npz").read_bytes()
        read(tmp_path / "a.npz")
        monkeypatch.setattr("gomin_client.files.numpy_files._LARGEST_DIRECTORY", 50)
        with pytest.raises(FileError, match=r"table of contents takes \d\d bytes"):
            read(tmp_path / "a.npz")

    def test_only_the_arrays_of_a_mel_are_read(self, tmp_path: Path) -> None:
        mel = np.random.default_rng(0).uniform(0, 1, (1, 80, 5)).astype(np.float32)
        np.savez_compressed(tmp_path / "a.npz", melspec=mel, other=np.array([{"an": "object"}]))
        np.testing.assert_array_equal(mels.read(tmp_path / "a.npz").mel, mel)

    def test_a_setting_is_one_number(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", melspec=np.zeros((80, 5)), n_mels=np.zeros(1000))
        with pytest.raises(FileError, match=r"its n_mels has shape \(1000,\); expected a single value"):
            read(tmp_path / "a.npz")
