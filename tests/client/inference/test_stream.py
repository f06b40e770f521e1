"""Audio of any length: windowed equals whole, streams equal files, and what is still being made is heard already."""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gomin_client import Vocoder
from gomin_client.errors import ContractError, SuspiciousMelError, UsageError
from gomin_client.files import audio
from gomin_client.files import mels as mel_files
from gomin_client.mel import resampling
from gomin_client.mel.features import MelConfig, mel_spectrogram
from gomin_client.transports.statistics import settled
from tests.support import BIN, EXAMPLES, RunningServer, assert_fails, run

Wave = NDArray[np.float32]


@pytest.fixture(scope="module")
def minute() -> Wave:
    """A minute of the examples, (samples,) at 24 kHz."""
    resampled = [resampling.resample(read.mono()[0], read.rate, 24000) for read in map(audio.read, EXAMPLES)]
    joined = np.concatenate(list(itertools.islice(itertools.cycle(resampled), 16)))
    assert len(joined) >= 60 * 24000
    return joined[: 60 * 24000].astype(np.float32)


@pytest.fixture(scope="module")
def whole(repository: Path, minute: Wave) -> Wave:
    """What the demo model makes of that minute in one piece."""
    with Vocoder(f"local:{repository}", window=10_000) as vocoder:
        assert vocoder.window > 60 * 24000 / 256 + 1
        return vocoder.reconstruct(minute, 24000)


def blocks_of(array: NDArray[np.float32], size: int) -> Iterator[NDArray[np.float32]]:
    for first in range(0, array.shape[-1], size):
        yield array[..., first : first + size]


class TestSeams:
    @pytest.mark.parametrize("where", ["grpc", "local"])
    @pytest.mark.parametrize("window", [128, 512])
    def test_a_minute_has_no_seams(
        self, server: RunningServer, repository: Path, minute: Wave, whole: Wave, where: str, window: int
    ) -> None:
        """The difference from the whole, around every border and everywhere else."""
        url = server.grpc if where == "grpc" else f"local:{repository}"
        with Vocoder(url, window=window, in_flight=3) as vocoder:
            assert window > 2 * vocoder.chain_halo_frames
            made = vocoder.reconstruct(minute, 24000)

        assert made.shape == whole.shape
        assert np.abs(made - whole).max() <= 1e-5

    def test_windows_that_are_too_short_are_refused(self, repository: Path) -> None:
        with pytest.raises(UsageError, match="a window of 26 frames: expected more than 26"):
            Vocoder(f"local:{repository}", window=26)
        assert_fails(
            run("gomin-client", "reconstruct", EXAMPLES[0], "--url", f"local:{repository}", "--window", "5"),
            2,
            "twice the model's halo",
        )

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(1, 150), st.integers(1, 60), st.integers(1, 40), st.integers(1, 3), st.integers(0, 9))
    def test_any_window_any_length(
        self, tiny_repository: Path, frames: int, extra: int, block: int, in_flight: int, first: int
    ) -> None:
        url = f"local:{tiny_repository}"
        with Vocoder(url) as reference:
            mel = np.random.default_rng(frames).uniform(0, 1, (reference.contract.mel.n_mels, frames))
            expected = reference.synthesize(mel)
            halo = reference.chain_halo_frames
        with Vocoder(url, window=2 * halo + extra, in_flight=in_flight) as vocoder:
            first_window = halo + first if first else None
            made = list(vocoder.stream(blocks_of(mel, block), first_window=first_window))

        np.testing.assert_allclose(np.concatenate(made), expected, rtol=0, atol=1e-5)


class TestStreams:
    @pytest.mark.parametrize("rate", [24000, 44100, 8000])
    @pytest.mark.parametrize("block", [1, 777, 100_000])
    def test_a_recording_in_blocks(self, repository: Path, rate: int, block: int) -> None:
        wave = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 3001)).astype(np.float32)
        with Vocoder(f"local:{repository}") as vocoder:
            expected = vocoder.reconstruct(wave, rate)
            made = np.concatenate(list(vocoder.reconstruct_stream(blocks_of(wave, block), rate)), axis=-1)
            mono = np.concatenate(list(vocoder.reconstruct_stream(blocks_of(wave[0], block), rate, trim=False)))

        np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)
        assert mono.ndim == 1
        assert len(mono) % 256 == 0
        np.testing.assert_allclose(mono[: expected.shape[1]], expected[0], rtol=0, atol=1e-5)

    def test_a_mel_as_it_is_made(self, server: RunningServer) -> None:
        """Frame by frame; the next one is only given when all the audio that can be made of those so far is there."""
        frames = 60
        made: list[Wave] = []
        with Vocoder(server.grpc, window=32) as vocoder:
            mel = np.random.default_rng(1).uniform(0, 1, (128, frames)).astype(np.float32)
            expected = vocoder.synthesize(mel)
            # frames that audio may lag behind
            most = max(vocoder.first_window, vocoder.window - vocoder.chain_halo_frames) + 1

            def live() -> Iterator[NDArray[np.float32]]:
                for frame in range(frames):
                    deadline = time.monotonic() + 20
                    while frame - sum(map(len, made)) // 256 > most:
                        assert time.monotonic() < deadline, f"audio lags more than {most} frames behind"
                        time.sleep(0.005)
                    yield mel[:, frame : frame + 1]

            for part in vocoder.stream(live(), first_window=vocoder.first_window):
                made.append(part)
            assert len(made) > 5
        np.testing.assert_allclose(np.concatenate(made), expected, rtol=0, atol=1e-5)

    def test_a_source_without_anything_new(self, repository: Path) -> None:
        mel = np.zeros((128, 9), np.float32)
        with Vocoder(f"local:{repository}") as vocoder:
            assert list(vocoder.stream([])) == []
            made = list(vocoder.stream([mel[:, :0], mel, mel[:, :0]]))
        assert sum(map(len, made)) == 9 * 256

    def test_bad_blocks(self, repository: Path) -> None:
        good = np.zeros((128, 60), np.float32)
        with Vocoder(f"local:{repository}", window=32) as vocoder:
            for bad, error in (
                (good - 5, SuspiciousMelError),
                (good[:80], ContractError),
                (good * np.nan, ContractError),
            ):
                parts: list[Wave] = []
                with pytest.raises(error):
                    parts.extend(vocoder.stream([good, bad]))
                assert parts, "what was good is there"
            with pytest.raises(UsageError, match="a first window of 3 frames"):
                vocoder.stream([good], first_window=3)

    def test_leaving_early_stops_the_reading(self, repository: Path) -> None:
        read = []

        def endless() -> Iterator[NDArray[np.float32]]:
            for index in itertools.count():
                read.append(index)
                yield np.zeros((128, 20), np.float32)

        with Vocoder(f"local:{repository}", window=32) as vocoder:
            for index, _ in enumerate(vocoder.stream(endless())):
                if index == 3:
                    break
            time.sleep(0.3)
            count = len(read)
            time.sleep(0.3)
        assert len(read) == count < 40
        assert threading.active_count() < 40


class TestFiles:
    def test_mels_of_all_formats_are_the_same(self, tmp_path: Path) -> None:
        wave, rate = soundfile.read(EXAMPLES[0], dtype="float32")
        soundfile.write(tmp_path / "a.wav", np.stack([wave, wave[::-1]], axis=1), rate, subtype="FLOAT")
        for extension in ("npz", "npy", "pt"):
            result = run(
                "gomin-client", "analyze", tmp_path / "a.wav", "-o", tmp_path / f"a.{extension}", "--channels", "all"
            )
            assert result.returncode == 0, result.stderr
        mels = [mel_files.read(tmp_path / f"a.{extension}").mel for extension in ("npz", "npy", "pt")]

        assert isinstance(mels[1], np.memmap)
        for mel in mels[1:]:
            np.testing.assert_array_equal(mel, mels[0])
        assert mels[0].shape[0] == 2

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("memory", [64, 1000, 1 << 25])
    def test_npy_is_turned_round_exactly(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, memory: int
    ) -> None:
        monkeypatch.setattr("gomin_client.files.npy._MEMORY", memory)
        mel = np.random.default_rng(0).uniform(0, 1, (channels, 5, 37)).astype(np.float32)

        mel_files.write_blocks(tmp_path / "a.npy", blocks_of(mel, 7), MelConfig(n_mels=5))

        np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), mel[0] if channels == 1 else mel)

    @pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "<i2"])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_npy_of_other_numbers(self, repository: Path, tmp_path: Path, dtype: str, order: str) -> None:
        mel = np.random.default_rng(0).integers(0, 2, (128, 5)).astype(dtype, order=order)
        np.save(tmp_path / "a.npy", mel)

        result = run("gomin-client", "synthesize", tmp_path / "a.npy", "--url", f"local:{repository}")

        assert result.returncode == 0, result.stderr
        with Vocoder(f"local:{repository}") as vocoder:
            expected = vocoder.synthesize(mel.astype(np.float32))
        made, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
        np.testing.assert_allclose(made, expected, rtol=0, atol=1e-4)

    def test_a_quiet_moment_of_a_stream_is_no_reason_for_doubt(self, repository: Path) -> None:
        """A network that predicts mels may be a little below 0 where there is silence."""
        mel = np.full((128, 400), 0.5, np.float32)
        mel[:, :200] = -0.03
        with Vocoder(f"local:{repository}") as vocoder:
            made = list(vocoder.stream(blocks_of(mel, 1)))
        assert sum(map(len, made)) == 400 * 256

    def test_memory_does_not_grow(self, tiny_repository: Path, tmp_path: Path) -> None:
        """Ten minutes of audio are 58 MB as float32, and in most other forms on the way."""
        peaks = []
        for minutes in (0.5, 10):
            source = tmp_path / "a.flac"
            soundfile.write(source, np.zeros(int(minutes * 60 * 8000), np.float32), 8000)
            command = [BIN / "gomin-client", "reconstruct", source, "-o", tmp_path / "b.wav"]
            process = subprocess.Popen([*command, "--url", f"local:{tiny_repository}"], stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            assert status == 0
            peaks.append(usage.ru_maxrss / 1024)
        assert peaks[1] - peaks[0] < 40, f"MiB: {peaks}"

    def test_a_reader_is_not_closed_while_it_is_read(self, repository: Path, tmp_path: Path) -> None:
        """A model that fails while the next block is being read: libsndfile would read freed memory."""
        soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).uniform(-1, 1, 24000 * 60), 24000)
        for _ in range(20):
            with audio.AudioReader(tmp_path / "a.flac") as reader:
                blocks = reader.blocks(200_000)
                thread = threading.Thread(target=lambda blocks=blocks: list(blocks))
                thread.start()
                next_block_is_being_read = 0.01
                time.sleep(next_block_is_being_read)
            thread.join()


class TestPipes:
    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        command = [BIN / "gomin-client", *arguments]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def test_a_player_hears_it_while_it_is_made(self, server: RunningServer) -> None:
        """The last frames are only written when audio of the first ones has been heard."""
        mel = np.random.default_rng(2).uniform(0, 1, (128, 300)).astype(np.float32)
        process = self.start("synthesize", "-", "-o", "-", "--stream", "--format", "raw", "--window", "40",
                             "--subtype", "float", "--url", server.grpc)  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(np.ascontiguousarray(mel[:, :200].T).tobytes())
        process.stdin.flush()
        early = process.stdout.read(4 * 256 * 100)
        process.stdin.write(np.ascontiguousarray(mel[:, 200:].T).tobytes())
        late, errors = process.communicate(timeout=60)

        assert process.returncode == 0, errors
        made = np.frombuffer(early + late, "<f4")
        with Vocoder(server.grpc) as vocoder:
            np.testing.assert_allclose(made, vocoder.synthesize(mel), rtol=0, atol=1e-5)

    def test_audio_through_pipes(self, server: RunningServer, tmp_path: Path) -> None:
        wave, rate = soundfile.read(EXAMPLES[0], dtype="float32")
        soundfile.write(tmp_path / "a.wav", wave, rate)
        process = self.start("reconstruct", "-", "-o", "-", "--stream", "--url", server.grpc)
        output, errors = process.communicate((tmp_path / "a.wav").read_bytes(), timeout=60)
        assert process.returncode == 0, errors
        (tmp_path / "out.wav").write_bytes(output)
        run("gomin-client", "reconstruct", tmp_path / "a.wav", "-o", tmp_path / "b.wav", "--url", server.grpc)

        made, made_rate = soundfile.read(tmp_path / "out.wav")
        expected, expected_rate = soundfile.read(tmp_path / "b.wav")
        assert made_rate == expected_rate == 24000
        np.testing.assert_allclose(made, expected, rtol=0, atol=2 / 32768)

    @pytest.mark.parametrize(
        ("options", "content", "code", "words"),
        [
            (["synthesize", "-", "-o", "-", "--stream"], b"123", 1, "ends within a frame: a frame is 512 bytes"),
            (["synthesize", "-", "-o", "-", "--stream"], b"", 1, "standard input is empty"),
            (["synthesize", "-", "-o", "-", "--stream"], b"\x93NUMPY" + bytes(600), 1, "is a numpy file"),
            (["synthesize", "-", "-o", "-", "--stream", "-f", "mp3"], b"", 2, ".mp3 needs to be complete"),
            (["synthesize", "-", "-o", "-", "--stream", "--subtype", "24"], b"", 2, "expected 16 or float"),
            (["synthesize", "-", "-o", "x.wav", "--stream"], b"", 2, "give -o -"),
            (["synthesize", "-", "-o", "-", "-f", "raw"], b"", 2, "--format raw"),
            (["reconstruct", "-", "-o", "-", "--stream"], b"noise" * 50, 1, "cannot be read as audio"),
        ],
    )
    def test_what_cannot_be_streamed(
        self, server: RunningServer, tmp_path: Path, options: list[str], content: bytes, code: int, words: str
    ) -> None:
        result = subprocess.run(
            [BIN / "gomin-client", *options, "--url", server.grpc], input=content, capture_output=True, cwd=tmp_path
        )  # fmt: skip

        assert result.returncode == code, result.stderr
        assert words in result.stderr.decode()
        assert list(tmp_path.iterdir()) == []


def test_concurrent_callers_meet_in_batches(server: RunningServer) -> None:
    """Windows have one shape, so Triton's dynamic batcher merges those of eight callers."""
    mel = np.random.default_rng(3).uniform(0, 1, (128, 600)).astype(np.float32)
    vocoders = [Vocoder(server.grpc, window=64) for _ in range(8)]
    before = settled(vocoders[0].statistics)
    expected = vocoders[0].synthesize(mel)
    results: dict[int, Wave] = {}
    threads = [
        threading.Thread(target=lambda i=i: results.__setitem__(i, vocoders[i].synthesize(mel))) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = settled(vocoders[0].statistics)
    for vocoder in vocoders:
        vocoder.close()

    assert before is not None
    assert after is not None
    spent = after.since(before)
    assert spent.inferences > 1.5 * spent.executions, "hardly any batches of more than one"
    for wave in results.values():
        np.testing.assert_allclose(wave, expected, rtol=0, atol=1e-5)


def test_the_mel_of_a_file_does_not_depend_on_how_it_is_read(tmp_path: Path, minute: Wave) -> None:
    soundfile.write(tmp_path / "a.wav", minute[:300_000], 24000, subtype="FLOAT")

    assert run("gomin-client", "analyze", tmp_path / "a.wav", "-o", tmp_path / "a.npy").returncode == 0

    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), mel_spectrogram(minute[:300_000]), rtol=0, atol=1e-5)
