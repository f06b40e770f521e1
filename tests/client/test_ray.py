"""Ray Data: the callable classes by themselves, and in a real Ray on this machine."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import soundfile

from gomin_client import (
    Connection,
    ContractError,
    FileError,
    GominError,
    MockModel,
    MockTransport,
    ServerError,
    UsageError,
    Vocoder,
)
from gomin_client.cli.main import app
from gomin_client.files import atomic
from gomin_client.mel.scales import MelReading
from gomin_client.ray import Analyzer, Reconstructor, Synthesizer
from tests.client.in_ray import KILLED_AT
from tests.ray_cluster import NO_NAMESPACE
from tests.soak import dataset
from tests.support import ROOT, RunningServer, invoke, missing

COUNT = 12
TMP = re.escape(tempfile.gettempdir())
BROKEN = "cannot be read as audio: its content is text"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve recordings, and a file that is none."""
    home = tmp_path_factory.mktemp("ray")
    dataset.write_recordings(home / "recordings", COUNT)
    (home / "recordings" / "part0" / "broken.flac").write_text("not audio")
    return home / "recordings"


@pytest.fixture(scope="module")
def expected(recordings: Path, repository: Path) -> dict[str, bytes]:
    """Name, without extension → what gomin-client makes of a recording."""
    out = recordings.parent / "expected"
    done = invoke(app, "reconstruct", recordings, "-o", out, "--url", f"local:{repository}", "--quiet")
    assert done.returncode == 1, done.stderr
    assert f"{COUNT} done, 1 failed" in done.stderr
    return {path.stem: path.read_bytes() for path in out.rglob("*.wav")}


@pytest.fixture(scope="module")
def in_ray(recordings: Path, repository: Path) -> Path:
    """The folder in which `in_ray.py` has run."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    home = recordings.parent / "home"
    home.mkdir()
    (home / "in").symlink_to(recordings)
    files = sorted(recordings.glob("*/*"))
    columns = {"name": [path.stem for path in files], "audio": [path.read_bytes() for path in files]}
    table = pa.table({"number": list(range(len(files))), **columns})
    (home / "recordings").mkdir()
    for first in range(0, len(files), 4):  # each file is a block
        pq.write_table(table.slice(first, 4), home / "recordings" / f"{first}.parquet")
    (home / "shards").mkdir()
    with tarfile.open(home / "shards" / "00000.tar", "w") as shard:
        for path in recordings.glob("*/*.flac"):
            shard.add(path, path.name)
    done = subprocess.run(
        [sys.executable, "-m", "tests.client.in_ray", repository],
        cwd=home,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},  # of actors, too
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode == NO_NAMESPACE:
        missing(f"a network namespace ({done.stderr.strip()})")
    assert done.returncode == 0, done.stderr[-5000:]
    return home


def rows_of(parquet: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(parquet).to_pylist()
    return rows


@pytest.mark.slow
def test_an_actor_that_is_killed_loses_and_doubles_nothing(in_ray: Path, expected: dict[str, bytes]) -> None:
    found = json.loads((in_ray / "found.json").read_text())["kill"]
    rows = rows_of(in_ray / "survived")

    assert sorted(row["number"] for row in rows) == list(range(COUNT + 1))
    assert {row["name"]: row["made"] for row in rows if not row["error"]} == expected
    attempts = [process for process, numbers in found["handled"] if KILLED_AT in numbers]
    assert len(attempts) == 2
    assert attempts[0] == found["killed"] != attempts[1]


@pytest.mark.slow
def test_examples(in_ray: Path, expected: dict[str, bytes]) -> None:
    """Of docs/datasets.md."""
    flacs = {path.stem for path in (in_ray / "in").glob("*/*.flac")} - {"broken"}
    files, in_parquet, in_shards = json.loads((in_ray / "found.json").read_text())["examples"]

    assert len(flacs) == 2
    assert {path.stem: path.read_bytes() for path in (in_ray / "out").rglob("*.wav")} == {
        name: expected[name] for name in flacs
    }
    assert [error.endswith(BROKEN) for error in files] == [True]

    rows = {row["name"]: row for row in rows_of(in_ray / "made")}
    assert rows.pop("broken")["audio"] == b""
    assert rows.keys() == expected.keys()
    for name, row in rows.items():
        assert row["audio"][:4] == b"fLaC"
        audio, wave = (soundfile.read(io.BytesIO(made), dtype="int16")[0] for made in (row["audio"], expected[name]))
        np.testing.assert_allclose(audio, wave, rtol=0, atol=1)  # libsndfile rounds to 16 bits differently
    assert in_parquet == [f"audio: {BROKEN}"]

    members: dict[str, bytes] = {}
    for path in (in_ray / "made-shards").glob("*.tar"):
        with tarfile.open(path) as shard:
            for member in shard:
                file = shard.extractfile(member)
                assert file is not None
                assert member.name not in members
                members[member.name] = file.read()
    assert {name: made for name, made in members.items() if made and name.endswith(".wav")} == {
        f"{name}.wav": expected[name] for name in flacs
    }
    assert {name: made for name, made in members.items() if made and name.endswith(".error")} == {
        "broken.error": f"flac: {BROKEN}".encode()
    }
    assert len(in_shards) == 1


@pytest.mark.slow
def test_three_ways_give_the_same_files(
    in_ray: Path, expected: dict[str, bytes], recordings: Path, repository: Path
) -> None:
    plain = recordings.parent / "expected"
    assert len(expected) == COUNT
    status = dataset.reconstruct_in_shards(recordings, in_ray / "sharded", f"local:{repository}", 2)

    assert status == 1  # a file is broken
    for made in (in_ray / "sharded", in_ray / "rows"):
        assert dataset.differences(plain, made, COUNT) == []


def test_what_differs_is_noticed(tmp_path: Path) -> None:
    for folder in ("expected", "found"):
        for name in ("same", "other", f"only-{folder}"):
            (tmp_path / folder / "part").mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / "part" / name).write_text(folder if name == "other" else name)

    assert dataset.differences(tmp_path / "expected", tmp_path / "found", 4) == [
        "expected has 3 files, expected 4",
        "found: part/only-expected is missing",
        "found: part/only-found should not exist",
        "found: part/other differs",
    ]


def objects(*values: Any) -> np.ndarray[Any, Any]:
    """A column of a batch, as Ray passes it."""
    column = np.empty(len(values), object)
    for row, value in enumerate(values):
        column[row] = value
    return column


@pytest.fixture(scope="module")
def mock() -> MockTransport:
    """A model whose audio is a constant, and that costs nothing."""
    model = MockModel.vocoder(lambda mel: np.full((len(mel), mel.shape[-1] * 256), 0.25, np.float32))
    return MockTransport({"gomin_gan": model})


def test_rows_through_a_server_are_the_files_of_the_client(
    recordings: Path, server: RunningServer, tmp_path: Path
) -> None:
    """Bytes, paths and the audio columns of Hugging Face; a bad row is reported beside the good ones."""
    files = sorted(recordings.glob("part1/*"))
    done = invoke(app, "reconstruct", *files, "-o", tmp_path, "--url", server.grpc, "--channels", "all", "--quiet")
    assert done.returncode == 0, done.stderr
    whole = files[0].read_bytes()
    given = objects(whole, str(files[1]), {"bytes": None, "path": str(files[2])}, {"bytes": whole, "path": "gone"})
    bad = objects(b"not audio", "no-such.wav", None, 7, {"bytes": None, "path": None}, {"bytes": b"", "path": "gone"})
    batch = {"sound": np.concatenate([given, bad]), "number": np.arange(10)}

    made = Reconstructor(server.grpc, column="sound", all_channels=True, parallel=2)(batch)

    assert list(made) == ["sound", "number", "audio", "error", "warning"]
    np.testing.assert_array_equal(made["number"], np.arange(10))
    written = [(tmp_path / files[index].with_suffix(".wav").name).read_bytes() for index in (0, 1, 2, 0)]
    assert list(made["audio"]) == [*written, *[b""] * 6]
    assert list(made["error"]) == [
        *[""] * 4,
        f"sound: {BROKEN}",
        "no-such.wav: no such file",
        "sound: is null; expected bytes or a path",
        "sound: has a value of type int; expected bytes or a path",
        "sound: is null; expected bytes or a path",
        "sound: is empty",
    ]


def test_mels_become_the_same_audio_in_any_form(recordings: Path, repository: Path) -> None:
    url, path = f"local:{repository}", next(recordings.glob("part0/*.wav"))
    recording = {"bytes": objects(path.read_bytes(), b"?")}
    as_files, as_arrays = (Analyzer(extension=extension)(recording)["mel"] for extension in (".npz", None))
    mel, nothing = as_arrays

    assert (mel.ndim, mel.dtype, nothing.shape, nothing.dtype) == (2, np.float32, (0, 0), np.float32)
    buffer = io.BytesIO()
    np.save(buffer, mel)
    transposed = Synthesizer(url, extension=None, reading=MelReading(transpose=True))({"mel": objects(mel.T)})["audio"][
        0
    ]
    nested = objects(*(objects(*band) for band in mel.tolist()))
    forms = objects(
        mel, as_files[0], buffer.getvalue(), mel.tolist(), nested, np.stack([mel, mel]), [[1], [1, 2]], b"?"
    )
    made = Synthesizer(url, extension=None)({"mel": forms})

    with Vocoder(url) as vocoder:
        audio = vocoder.synthesize(mel)
    for found in (transposed, *made["audio"][:5]):
        np.testing.assert_array_equal(found, audio)
    assert [found.shape for found in made["audio"][5:]] == [(0,)] * 3
    assert list(made["error"][:5]) == [""] * 5
    assert made["error"][5] == "mel: has 2 channels; choose `all_channels`"
    assert made["error"][6] == "mel: is not an array of numbers"
    assert made["error"][7].startswith("mel")
    both = Synthesizer(url, extension=None, all_channels=True)({"mel": objects(np.stack([mel, mel]))})["audio"][0]
    np.testing.assert_array_equal(both, [audio, audio])


def test_arrays_of_all_channels(tmp_path: Path, mock: MockTransport) -> None:
    """Results have as many axes for one channel as for two, and for a row that failed."""
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, (12000, 2)).astype(np.float32)
    for name, samples in (("one", wave[:, 0]), ("two", wave)):
        soundfile.write(tmp_path / f"{name}.wav", samples, 24000)
    batch = {"path": objects(*(str(tmp_path / f"{name}.wav") for name in ("one", "two", "none")))}
    options: dict[str, Any] = {"column": "path", "extension": None, "all_channels": True}

    assert [mel.shape for mel in Analyzer(**options)(batch)["mel"]] == [(1, 128, 47), (2, 128, 47), (0, 0, 0)]
    audio = Reconstructor(mock, **options)(batch)["audio"]
    assert [made.shape for made in audio] == [(1, 12000), (2, 12000), (0, 0)]
    assert {made.dtype for made in audio} == {np.dtype(np.float32)}


def test_a_recording_that_is_cut_off_is_used_with_a_warning(recordings: Path) -> None:
    whole = next(recordings.glob("part0/*.wav")).read_bytes()

    made = Analyzer()({"bytes": objects(whole, whole[: len(whole) // 2])})

    assert list(made["error"]) == ["", ""]
    assert made["warning"][0] == ""
    assert made["warning"][1].startswith("bytes: is truncated; read as far as it goes")


def test_results_in_files(recordings: Path, tmp_path: Path, mock: MockTransport) -> None:
    path = next(recordings.glob("part0/*.wav"))
    targets = [str(tmp_path / "a" / "b.flac"), str(tmp_path / "c.xyz"), "", str(tmp_path / "d.wav")]
    batch = {"bytes": objects(*[path.read_bytes()] * 3, b"?"), "to": objects(*targets)}

    made = Reconstructor(mock, target="to")(batch)

    assert list(made) == ["bytes", "to", "error", "warning"]
    assert [bool(error) for error in made["error"]] == [False, True, True, True]
    assert "cannot write .xyz" in made["error"][1]
    assert made["error"][2] == "the path to write to is ''; expected a string"
    assert made["error"][3] == f"bytes: {BROKEN}"
    assert [found.name for found in tmp_path.rglob("*") if found.is_file()] == ["b.flac"]
    assert soundfile.info(tmp_path / "a" / "b.flac").samplerate == 24000


def test_a_server_that_goes_away_is_no_error_of_a_row(recordings: Path, mock: MockTransport) -> None:
    batch = {"bytes": objects(next(recordings.glob("part0/*.wav")).read_bytes())}
    reconstructor = Reconstructor(mock, connection=Connection(retry_for_s=0))
    assert list(reconstructor(batch)["error"]) == [""]

    mock.fail(ServerError("mock: cannot be reached"))
    with pytest.raises(ServerError, match="cannot be reached"):
        reconstructor(batch)
    mock.fail(ContractError("an odd recording"))
    assert list(reconstructor(batch)["error"]) == ["bytes: an odd recording"]


@pytest.mark.parametrize("extension", [".npz", ".npy", ".pt", ".wav", ".flac", ".ogg", ".mp3"])
def test_a_full_disk_is_no_error_of_a_row(
    extension: str, recordings: Path, tmp_path: Path, mock: MockTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temporary files and results; the job ends with a message that says which disk."""
    path = next(recordings.glob("part0/*.wav"))
    batch = {"path": objects("no-such.wav", str(path)), "to": objects(*[str(tmp_path / f"made{extension}")] * 2)}
    kind: Any = Analyzer if extension in (".npz", ".npy", ".pt") else partial(Reconstructor, mock)

    def on_a_full_disk(part: Path) -> int:
        part.symlink_to("/dev/full")
        return os.open(part, os.O_WRONLY)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_create_file", on_a_full_disk)
        with pytest.raises(FileError, match=f"^{TMP}: temporary files .*: No space left .* set TMPDIR"):
            kind(column="path", extension=extension)(batch)
        with pytest.raises(FileError, match=rf"^{tmp_path}/made{extension}: cannot be written: No space left"):
            kind(column="path", target="to")(batch)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", MagicMock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(FileError, match=f"{TMP}: temporary files cannot be written there: No space left"):
            kind()({"bytes": objects(b"?")})


def test_a_diffusion_model_needs_a_seed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"local:{repository}"
    closed: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Vocoder, "close", lambda vocoder: closed.append(vocoder.model))
        with pytest.raises(UsageError, match="draws noise: give a seed"):
            Reconstructor(url, "diffusion")
        with pytest.raises(UsageError, match="draws no noise"):
            Reconstructor(url, "gan", seed=1)
    assert len(closed) == 2

    batch = {"mel": objects(np.zeros((32, 20), np.float32))}
    made = [Synthesizer(url, "diffusion", seed=seed, extension=None)(batch) for seed in (1, 1, 2)]

    assert [list(found["error"]) for found in made] == [[""]] * 3
    first, again, other = (found["audio"][0] for found in made)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"extension": ".xyz"}, r"extension '.xyz': expected .wav, .flac, .ogg, .mp3, or None for arrays"),
        ({"extension": ".npz"}, r"extension '.npz': expected .wav"),
        ({"subtype": "32"}, r"subtype '32': .wav has 16, 24, float"),
        ({"extension": None, "subtype": "16"}, "subtype '16': arrays have none"),
        ({"result": "error"}, "columns error, error, warning: expected different names"),
        ({"parallel": 0}, "parallel 0: expected a whole number"),
        ({"trimm": True}, "option 'trimm': expected all_channels, connection, force"),
        ({"version": 7}, "has no version 7"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], problem: str, mock: MockTransport) -> None:
    with pytest.raises(UsageError, match=problem):
        Reconstructor(mock, **options)


def data_frame() -> object:
    import pandas as pd

    return pd.DataFrame({"bytes": [b""]})


@pytest.mark.parametrize(
    ("batch", "problem"),
    [
        (lambda: {"audio": objects(b"")}, "there is no column 'bytes'; there are 'audio'"),
        (data_frame, "a batch is a DataFrame: expected a dict; leave out `batch_format`"),
    ],
)
def test_batches_of_another_form(batch: Callable[[], Any], problem: str) -> None:
    with pytest.raises(GominError, match=problem):
        Analyzer()(batch())


def test_a_missing_ray_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gomin_client.ray")
    monkeypatch.setitem(sys.modules, "ray", None)  # type: ignore[arg-type]

    with pytest.raises(ModuleNotFoundError, match=r"the packages ray and pyarrow: pip install 'gomin-triton\[ray\]'"):
        importlib.import_module("gomin_client.ray")
