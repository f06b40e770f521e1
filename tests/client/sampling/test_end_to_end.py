"""The client's dial for diffusion: samplers, steps, schedules, seeds; windowed and whole; by server and in-process."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from gomin_client import Vocoder
from gomin_client.cli.main import app
from gomin_client.errors import UsageError
from tests.support import EXAMPLES, RunningServer, assert_fails, invoke

pytestmark = pytest.mark.long

CHAINS = [
    {"sampler": "fast"},
    {"sampler": "ddim", "steps": 10},
    {"sampler": "ddim", "steps": 5, "eta": 0.7},
    {"sampler": "dpm++", "steps": 8},
    {"sampler": "dpm++sde", "steps": 4},
    {"sampler": "unipc", "timesteps": "49,30,12,2"},
    {"sampler": "dpm++", "steps": 4, "schedule": "interpolated"},
]


@pytest.fixture(scope="module")
def mel() -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(0, 1, (2, 32, 48)).astype(np.float32)


def test_the_chain_of_50_steps_is_the_same_in_triton(
    server: RunningServer, repository: Path, mel: NDArray[np.float32]
) -> None:
    """In one window: two would have more than 100 frames each, and the shorter chains below are cut in the same way."""
    part = mel[..., :10]
    with Vocoder(f"local:{repository}", "diffusion") as vocoder:
        assert vocoder.sampling is not None
        assert (vocoder.sampling.steps, vocoder.chain_halo_frames) == (50, 50 * vocoder.contract.halo_frames)
        local = vocoder.synthesize(part, seed=7)
    with Vocoder(server.grpc, "diffusion") as vocoder:
        served = vocoder.synthesize(part, seed=7)
        other = vocoder.synthesize(part, seed=8)

    assert np.abs(served - local).max() <= 1e-4
    assert np.abs(served - other).max() > 1e-2


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_windowed_equals_whole_and_triton_equals_local(
    server: RunningServer, repository: Path, mel: NDArray[np.float32], chain: dict
) -> None:
    with Vocoder(f"local:{repository}", "diffusion", window=1000, **chain) as vocoder:
        assert vocoder.sampling is not None
        assert vocoder.chain_halo_frames == vocoder.contract.halo_frames * vocoder.sampling.steps
        whole = vocoder.synthesize(mel, seed=7)
        halo = vocoder.chain_halo_frames
    window = 2 * halo + 20
    assert window < mel.shape[-1], "one window would prove nothing"
    with Vocoder(server.grpc, "diffusion", window=window, **chain) as vocoder:
        windowed = vocoder.synthesize(mel, seed=7)
        other = vocoder.synthesize(mel[..., :10], seed=8)

    assert np.abs(windowed - whole).max() <= 1e-4
    assert np.abs(windowed[..., : 256 * 10] - other).max() > 1e-2


def test_channels_share_their_noise(server: RunningServer, mel: NDArray[np.float32]) -> None:
    same = np.stack([mel[0], mel[0]])
    with Vocoder(server.http, "diffusion", sampler="fast") as vocoder:
        left, right = vocoder.synthesize(same, seed=1)
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "chain", "words"),
    [
        ("gan", {"steps": 5}, "model gomin_gan has no sampling chain: steps have no effect on it"),
        ("diffusion", {"sampler": "euler"}, "sampler 'euler': expected"),
        ("diffusion", {"steps": 5}, "sampler ddpm takes 50; take a sampler with any number of steps"),
        ("diffusion", {"sampler": "ddim", "steps": 51}, "steps 51: expected 1 to 50"),
        ("diffusion", {"sampler": "ddim", "eta": 2.0}, "eta 2: expected a number from 0"),
        ("diffusion", {"sampler": "unipc", "timesteps": "50,3"}, "timesteps: 50 is out of range; expected 0 to 49"),
        ("diffusion", {"timesteps": "49,3"}, "timesteps: sampler ddpm takes none"),
        ("diffusion", {"schedule": "square"}, "schedule 'square': expected"),
    ],
)
def test_chains_that_make_no_sense(repository: Path, model: str, chain: dict, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        Vocoder(f"local:{repository}", model, **chain)


class TestCommandLine:
    def synthesize(self, home: Path, url: str, name: str, *options: str) -> str:
        result = invoke(app, "synthesize", home / "a.npy", "-o", home / name, "-m", "diffusion", "--url", url, *options
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return result.stdout

    def test_a_fresh_seed_is_printed_and_kept(self, server: RunningServer, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.full((32, 8), 0.5, np.float32))
        chain = ("--sampler", "dpm++", "--timesteps", "49, 40,30,20,10,0", "--subtype", "float")
        printed = self.synthesize(tmp_path, server.grpc, "first.wav", *chain)
        seed = re.search(r"^seed (\d+)$", printed, re.MULTILINE)
        assert seed is not None

        with soundfile.SoundFile(tmp_path / "first.wav") as file:
            chain_text = "sampler dpm++, steps 6, schedule linear, timesteps 49,40,30,20,10,0"
            assert file.comment == f"gomin_diffusion 1, seed {seed[1]}, {chain_text}"
        self.synthesize(tmp_path, server.http, "again.wav", *chain, "--seed", seed[1])
        first, again = (soundfile.read(tmp_path / name, dtype="float32")[0] for name in ("first.wav", "again.wav"))
        assert np.abs(first - again).max() <= 1e-4

    @pytest.mark.parametrize("extension", ["flac", "ogg", "mp3"])
    def test_comments_of_other_formats(self, server: RunningServer, tmp_path: Path, extension: str) -> None:
        np.save(tmp_path / "a.npy", np.full((32, 8), 0.5, np.float32))
        self.synthesize(tmp_path, server.grpc, f"a.{extension}", "--sampler", "fast", "--seed", "3")

        with soundfile.SoundFile(tmp_path / f"a.{extension}") as file:
            assert "seed 3, sampler fast, steps 6" in file.comment

    def test_errors(self, server: RunningServer, tmp_path: Path) -> None:
        options = ("--url", server.grpc, "-m", "diffusion")
        np.save(tmp_path / "a.npy", np.zeros((32, 8), np.float32))
        assert_fails(invoke(app, "synthesize", tmp_path / "a.npy", *options, "--steps", "7"), 2, "takes 50")
        explicit = (*options, "--sampler", "ddim", "--timesteps")
        assert_fails(invoke(app, "synthesize", tmp_path / "a.npy", *explicit, "3,49"), 2, "49 follows 3")
        assert_fails(invoke(app, "synthesize", tmp_path / "a.npy", *explicit, "few"), 2, "timesteps 'few': expected")
        assert_fails(
            invoke(app, "reconstruct", EXAMPLES[0], "--url", server.grpc, "--sampler", "ddim"), 2, "no sampling"
        )

    def test_verbose_tells_what_windows_cost(self, server: RunningServer, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros((32, 8), np.float32))
        result = invoke(app, "synthesize", tmp_path / "a.npy", "--url", server.grpc, "-m", "diffusion", "--verbose")
        assert "windows of 512 frames, 100 of them halo: 24 % more work" in result.stderr
