"""Distances between recordings: values that are known in advance."""

import warnings
from pathlib import Path, PurePath

import librosa
import numpy as np
import pytest

from gomin_client.batch.outputs import Source
from gomin_client.errors import FileError, UsageError
from gomin_client.files import audio
from gomin_client.mel.features import MelConfig
from gomin_client.tools.compare import (
    RESOLUTIONS,
    Comparison,
    Distance,
    Versions,
    compare_paths,
    distance,
    match,
    pair,
    table,
)

RATE = MelConfig().sample_rate
WAVE = np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32)


def test_a_recording_at_half_the_amplitude() -> None:
    measured = distance(WAVE, WAVE / 2, MelConfig())

    half_db = 20 * np.log10(2)
    assert measured.log_mel_l1_db == pytest.approx(half_db, abs=0.01)
    assert measured.spectral_convergence == pytest.approx(0.5, abs=1e-6)
    assert measured.log_magnitude_l1 == pytest.approx(np.log(2), abs=1e-3)
    assert measured.snr_db == pytest.approx(half_db, abs=1e-4)
    assert (measured.seconds, measured.length_difference) == (1.0, 0)


@pytest.mark.parametrize("samples", [1, 700, RATE])
def test_the_magnitudes_are_librosas(samples: int) -> None:
    recordings = WAVE[:samples].astype(np.float64), WAVE[-samples:].astype(np.float64)
    convergences, differences = [], []
    for n_fft, hop, window in RESOLUTIONS:
        with warnings.catch_warnings(action="ignore"):  # about recordings shorter than the transform
            one, two = (
                np.abs(librosa.stft(wave, n_fft=n_fft, hop_length=hop, win_length=window, pad_mode="constant"))
                for wave in recordings
            )
        convergences.append(np.linalg.norm(two - one) / np.linalg.norm(one))
        differences.append(np.abs(np.log(np.maximum(one, 1e-7)) - np.log(np.maximum(two, 1e-7))).mean())

    measured = distance(*(wave.astype(np.float32) for wave in recordings), MelConfig())

    assert measured.spectral_convergence == pytest.approx(np.mean(convergences), rel=1e-12)
    assert measured.log_magnitude_l1 == pytest.approx(np.mean(differences), rel=1e-12, abs=1e-12)


def test_the_longer_recording_is_cut() -> None:
    measured = distance(WAVE, np.concatenate([WAVE, WAVE[:500]]), MelConfig())

    assert (measured.seconds, measured.length_difference) == (1.0, 500)
    assert measured.snr_db == np.inf
    assert measured.to_dict()["snr_db"] is None


def test_silence_as_reference() -> None:
    measured = distance(np.zeros_like(WAVE), WAVE, MelConfig())

    assert (measured.snr_db, measured.spectral_convergence) == (-np.inf, np.inf)


def test_an_empty_recording_cannot_be_compared() -> None:
    with pytest.raises(FileError, match="nothing to compare"):
        distance(WAVE, WAVE[:0], MelConfig())


def test_sample_rates_may_differ(tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / (2 * RATE)).astype(np.float32) / 2
    audio.write(tmp_path / "a.wav", tone, 2 * RATE, "float")
    audio.write(tmp_path / "b.wav", tone[::2], RATE, "float")

    (compared,) = compare_paths(tmp_path / "a.wav", tmp_path / "b.wav")

    assert compared.distance is not None
    assert compared.distance.snr_db > 60


def sources(*names: str) -> list[Source]:
    return [Source(Path("root", name), PurePath(name).parent) for name in names]


def test_files_are_paired_by_subfolder_and_name() -> None:
    pairs = pair(sources("a.wav", "sub/a.flac", "b.wav"), sources("a.mp3", "sub/a.wav", "c.wav"))

    assert pairs == [
        ("a", Path("root/a.wav"), Path("root/a.mp3")),
        ("b", Path("root/b.wav"), None),
        ("c", None, Path("root/c.wav")),
        ("sub/a", Path("root/sub/a.flac"), Path("root/sub/a.wav")),
    ]


def test_outputs_that_kept_the_extension_of_their_input_are_paired_with_it() -> None:
    pairs = pair(sources("a.wav", "a.mp3"), sources("a.wav", "a.mp3.wav"))

    assert pairs == [
        ("a", Path("root/a.wav"), Path("root/a.wav")),
        ("a.mp3", Path("root/a.mp3"), Path("root/a.mp3.wav")),
    ]


def test_two_files_of_one_name_are_ambiguous() -> None:
    with pytest.raises(UsageError, match=r"a\.wav and root/a\.mp3 have the same name"):
        pair(sources("a.wav", "a.mp3"), sources("a.wav"))


def test_files_of_several_folders_are_matched_by_the_reference() -> None:
    references = sources("a.wav", "a.mp3", "b.wav")

    found = match([references, sources("a.wav", "a.mp3.wav", "c.wav"), sources("b.flac", "c.flac", "a.mp3.wav")])

    assert found == [
        ("a", (Path("root/a.wav"), Path("root/a.wav"), None)),
        ("a.mp3", (Path("root/a.mp3"), Path("root/a.mp3.wav"), Path("root/a.mp3.wav"))),
        ("b", (Path("root/b.wav"), None, Path("root/b.flac"))),
        ("c", (None, Path("root/c.wav"), Path("root/c.flac"))),
    ]


class TestSeveral:
    @pytest.fixture
    def folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for folder, loudness, names in (("in", 1, "ab"), ("half", 0.5, "ab"), ("third", 0.25, "ac")):
            for name in names:
                audio.write(Path(folder, f"{name}.wav"), WAVE * loudness, RATE, "float")

    def test_folders(self, folders: None) -> None:
        visited: list[Versions] = []

        compared = compare_paths(Path("in"), Path("half"), Path("third"), visit=visited.append)

        snr = {
            comparison.label: comparison.distance and round(comparison.distance.snr_db, 2) for comparison in compared
        }
        assert snr == {"a half": 6.02, "a third": 2.5, "b half": 6.02, "b third": None, "c third": None}
        assert [comparison.problem for comparison in compared if comparison.problem] == [
            "in/b.wav: has no counterpart in third",
            "third/c.wav: has no counterpart in in",
        ]
        assert compared == [comparison for versions in visited for comparison in versions.comparisons if comparison]
        assert [[wave is not None for wave in versions.waves] for versions in visited] == [
            [True, True, True],
            [True, True, False],
            [False, False, False],
        ]
        for wave, loudness in zip(visited[0].waves, (1, 0.5, 0.25), strict=True):
            np.testing.assert_array_equal(wave, WAVE * np.float32(loudness))
        assert [line.split()[:2] for line in table(compared).splitlines() if "mean" in line] == [["mean", "half"]]
        assert compared[0].to_dict()["version"] == "half"

    def test_files(self, folders: None) -> None:
        compared = compare_paths(Path("in/a.wav"), Path("half/a.wav"), Path("third/a.wav"))

        assert [comparison.label for comparison in compared] == ["in/a.wav half/a.wav", "in/a.wav third/a.wav"]
        assert [comparison.distance and round(comparison.distance.snr_db, 2) for comparison in compared] == [6.02, 2.5]

    def test_a_reference_that_cannot_be_read_is_one_problem(self, folders: None) -> None:
        Path("in/a.wav").write_text("no audio")

        compared = compare_paths(Path("in"), Path("half"), Path("third"))

        problems = [comparison.problem for comparison in compared if comparison.name == "a"]
        assert len(problems) == 2
        assert len(set(problems)) == 1
        assert problems[0].startswith("in/a.wav: cannot be read as audio")

    def test_a_file_among_folders(self, folders: None) -> None:
        with pytest.raises(UsageError, match=r"in and half/a\.wav: one is a folder, the other a file"):
            compare_paths(Path("in"), Path("half"), Path("half/a.wav"))


def test_the_table_has_a_mean_of_what_was_measured() -> None:
    def made(value: float) -> Distance:
        return Distance(value, value, value, value, value, 0)

    text = table([Comparison("a", made(1)), Comparison("b", problem="damaged"), Comparison("c", made(3))])

    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()[1:]}
    assert rows["b"] == ["failed"]
    assert rows["mean"] == ["2.00", "2.000", "2.000", "2.0", "2.00"]
