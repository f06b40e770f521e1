import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gomin_client import Vocoder
from gomin_client.errors import FileError, UsageError
from gomin_client.mel.features import Mel, MelConfig, Wave
from gomin_client.sampling import registry
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.tools.calibration import (
    Measurement,
    MeasurementsFile,
    Meter,
    Recording,
    find_recordings,
    grid,
    synthesizer,
)
from gomin_client.tools.chain_results import summarize

ABOUT = {"model": "gomin_diffusion", "version": 1, "seed": 0}


class TestGrid:
    def test_the_full_chain_is_first_and_samplers_take_what_they_can(self) -> None:
        chains = grid(["ddim", "fast", "unipc", "ddpm"], [5, 10], [0, 0.5], "cosine", 50)

        assert [(chain.sampler, chain.steps, chain.eta) for chain in chains] == [
            ("ddpm", 50, None),
            ("ddim", 5, 0),
            ("ddim", 5, 0.5),
            ("ddim", 10, 0),
            ("ddim", 10, 0.5),
            ("fast", 6, None),
            ("unipc", 5, None),
            ("unipc", 10, None),
        ]
        assert {chain.schedule for chain in chains} == {"cosine"}

    def test_explicit_timesteps_are_for_samplers_that_take_them(self) -> None:
        chains = grid(["ddim", "fast", "unipc"], [2], [0.5], "linear", 50, ["49, 20", "49,9,0"])

        assert [(chain.sampler, chain.steps, chain.eta, chain.timesteps) for chain in chains[1:]] == [
            ("ddim", 2, 0.5, None),
            ("ddim", 2, 0.5, "49,20"),
            ("ddim", 3, 0.5, "49,9,0"),
            ("fast", 6, None, None),
            ("unipc", 2, None, None),
            ("unipc", 2, None, "49,20"),
            ("unipc", 3, None, "49,9,0"),
        ]
        with pytest.raises(UsageError, match=r"timesteps 0,9: no sampler of the grid takes it: timesteps: 9 follows 0"):
            grid(["ddim"], [2], None, "linear", 50, ["0,9"])

    def test_the_default_grid_is_for_any_number_of_timesteps(self) -> None:
        assert {chain.sampler for chain in grid(None, None, None, "linear", 50)} == set(registry.SAMPLERS)
        chains = grid(None, None, None, "linear", 12)

        assert {chain.sampler for chain in chains} == set(registry.SAMPLERS) - {"fast"}  # it needs more noise
        with pytest.raises(UsageError, match="fast begins with more noise"):
            grid(["fast"], None, None, "linear", 12)
        assert [chain.steps for chain in chains if chain.sampler == "unipc"] == [5, 10]
        # explicit, or a model whose default chain is ddim with another eta would use that one
        assert [chain.eta for chain in chains if chain.sampler == "ddim"] == [0, 0]
        assert [chain.sampler for chain in grid(["fast"], None, None, "linear", 50)] == ["ddpm", "fast"]

    @pytest.mark.parametrize(
        ("samplers", "steps", "etas", "words"),
        [
            (["euler"], [5], None, "sampler 'euler': expected"),
            (["ddim"], [5, 51], None, "steps 51: no sampler of the grid takes it: steps 51: expected 1 to 50"),
            (["unipc"], [5], [0.5], "eta 0.5: no sampler of the grid takes it: eta 0.5: only sampler ddim"),
            (["ddim", "unipc"], [5], [0.5, 2.0], "eta 2.0: no sampler of the grid takes it"),
        ],
    )
    def test_values_that_no_sampler_takes(
        self, samplers: list[str], steps: list[int], etas: list[float] | None, words: str
    ) -> None:
        with pytest.raises(UsageError, match=words):
            grid(samplers, steps, etas, "linear", 50)


class TestRecordings:
    def test_each_content_once(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "a.wav", np.zeros(100), 8000)
        (tmp_path / "sub").mkdir()
        shutil.copy(tmp_path / "a.wav", tmp_path / "sub" / "b.wav")
        soundfile.write(tmp_path / "sub" / "c.wav", np.zeros(200), 8000)

        found = find_recordings([str(tmp_path)])

        assert [recording.path.name for recording in found] == ["a.wav", "c.wav"]
        assert found[0].sha256 == hashlib.sha256((tmp_path / "a.wav").read_bytes()).hexdigest()

    def test_what_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match=r"missing\.wav: cannot be read: No such file"):
            find_recordings([str(tmp_path / "missing.wav")])
        with pytest.raises(UsageError, match="standard input"):
            find_recordings(["-"])
        with pytest.raises(UsageError, match="contains no audio files"):
            find_recordings([str(tmp_path)])


class TestMeasuring:
    @pytest.fixture
    def recordings(self, tmp_path: Path) -> Sequence[Recording]:
        soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 12000), 24000)
        return find_recordings([str(tmp_path / "a.wav")])

    @pytest.fixture
    def calls(self) -> list[SamplerSettings]:
        return []

    def run(
        self,
        recordings: Sequence[Recording],
        path: Path,
        calls: list[SamplerSettings],
        most: int = 99,
        *,
        keep: bool = False,
    ) -> Meter:
        """Measure at most so many; with more steps, the sound is louder and takes longer."""

        def synthesize(mel: Mel, chain: SamplerSettings) -> tuple[Wave, float]:
            calls.append(chain)
            noise = np.random.default_rng(1).uniform(-1, 1, 256 * mel.shape[1]).astype(np.float32)
            return noise * np.float32((chain.steps or 0) / 60), 0.01 * (chain.steps or 0)

        meter = Meter(
            recordings, CHAINS[0], MelConfig(), synthesize, MeasurementsFile(path, ABOUT), keep_references=keep
        )
        running = meter.measure(CHAINS)
        for number, _ in enumerate(running, 1):
            if number == most:
                break
        running.close()
        return meter

    def test_what_was_measured_is_not_measured_again(
        self, recordings: Sequence[Recording], calls: list[SamplerSettings], tmp_path: Path
    ) -> None:
        full, five, ten = CHAINS
        path = tmp_path / "measurements.jsonl"
        self.run(recordings, path, calls, most=2)
        assert calls == [five, full, five]  # the first one is not timed
        assert MeasurementsFile(path, ABOUT).missing(CHAINS, recordings[0]) == [ten]

        calls.clear()
        self.run(recordings, path, calls)
        assert calls == [five, full, ten]  # the full one again, since its sound is not kept

        calls.clear()
        self.run(recordings, path, calls)
        assert calls == []
        results = {one.chain: one for one in summarize(MeasurementsFile(path, ABOUT).measured(CHAINS, recordings))}
        assert list(results) == [five, ten, full]
        assert results[full].to_full_db == 0
        assert results[five].to_full_db > results[ten].to_full_db > 0
        assert results[five].times_real_time == pytest.approx(0.5 / 0.05)

    def test_the_result_of_the_full_chain_is_kept_for_further_chains(
        self, recordings: Sequence[Recording], calls: list[SamplerSettings], tmp_path: Path
    ) -> None:
        full, five, ten = CHAINS
        other = SamplerSettings("ddim", 5, "linear", 0.0, "49,30,12,4,0")
        meter = self.run(recordings, tmp_path / "m.jsonl", calls, keep=True)
        assert calls == [five, full, five, ten]
        calls.clear()

        (measured,) = meter.measure([other])

        assert calls == [other]
        assert (measured.chain, measured.to_full_db) == (other, meter.file.measured([five], recordings)[0].to_full_db)

    def test_recordings_are_known_by_their_content(
        self, recordings: Sequence[Recording], calls: list[SamplerSettings], tmp_path: Path
    ) -> None:
        path = tmp_path / "measurements.jsonl"
        self.run(recordings, path, calls)
        recordings[0].path.rename(tmp_path / "b.wav")
        moved = find_recordings([str(tmp_path / "b.wav")])
        soundfile.write(tmp_path / "a.wav", 0.1 * np.ones(6000), 24000)
        other = find_recordings([str(tmp_path / "a.wav")])

        file = MeasurementsFile(path, ABOUT)
        assert file.missing(CHAINS, moved[0]) == []
        assert file.missing(CHAINS, other[0]) == CHAINS
        assert len(file.measured(CHAINS[:2], moved)) == 2  # those of other chains and recordings are left out
        assert file.measured(CHAINS, other) == []

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("", "is not a measurements file of gomin-client calibrate"),
            ("no JSON\n", "is not a measurements file of gomin-client calibrate"),
            ("3\n", "is not a measurements file of gomin-client calibrate"),
            (json.dumps(ABOUT) + '\n{"chain": 3}\n', "is not a measurements file of gomin-client calibrate"),
            (json.dumps({**ABOUT, "version": 2}), "has measurements with another version: choose another file"),
        ],
    )
    def test_other_files_are_refused(self, tmp_path: Path, content: str, words: str) -> None:
        (tmp_path / "measurements.jsonl").write_text(content)

        with pytest.raises(FileError, match=words):
            MeasurementsFile(tmp_path / "measurements.jsonl", ABOUT)

    @pytest.mark.parametrize("changed", [{"to_full_db": "3"}, {"audio_s": 0}, {"log_mel_l1_db": math.nan}, {"x": 1}])
    def test_damaged_measurements_are_refused(self, tmp_path: Path, changed: dict[str, object]) -> None:
        line = Measurement(CHAINS[0], "a.wav", "00", 1.0, 1.0, 4.0, 1.0, 0.0).to_dict()
        assert Measurement.from_dict(json.loads(json.dumps(line))).to_dict() == line
        (tmp_path / "m.jsonl").write_text(f"{json.dumps(ABOUT)}\n{json.dumps({**line, **changed})}\n")

        with pytest.raises(FileError, match="is not a measurements file"):
            MeasurementsFile(tmp_path / "m.jsonl", ABOUT)


CHAINS = grid(["ddim"], [5, 10], None, "linear", 50)


def test_each_chain_is_the_one_that_a_request_gets(repository: Path) -> None:
    url, chain = f"local:{repository}", SamplerSettings("ddim", 3, "linear", 0.0)
    with Vocoder(url, "diffusion") as vocoder, Vocoder(url, "diffusion", sampling=chain) as wanted:
        own = vocoder.sampling
        mel = np.full((vocoder.contract.mel.n_mels, 20), 0.5, np.float32)

        made, elapsed_s = synthesizer(vocoder, 7, None)(mel, chain)

        np.testing.assert_allclose(made, wanted.synthesize(mel, 7), rtol=0, atol=1e-5)
        assert elapsed_s > 0
        assert vocoder.sampling == own != chain
        with pytest.raises(UsageError, match=r"a window of 30 frames: expected more than"):
            synthesizer(vocoder, 7, 30)(mel, SamplerSettings("ddpm", 50, "linear"))
