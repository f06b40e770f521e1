import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gomin_client import Vocoder
from gomin_client.contract import choices
from gomin_client.errors import UsageError
from gomin_client.sampling import registry
from gomin_client.sampling.base import Sampler
from gomin_client.sampling.noise import NoiseField
from gomin_client.sampling.registry import SAMPLERS, SCHEDULES, make_sampler, one_of
from gomin_client.sampling.settings import SamplerSettings
from tests.client.sampling.denoisers import LINEAR, STEPS
from tests.support import ROOT

TOY = ("toy", "one step", "tests.client.sampling.toy_sampler")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SAMPLERS", dict(registry.SAMPLERS))
    registry.register(*TOY)


@pytest.mark.parametrize(
    ("name", "steps"), [("ddpm", 50), ("fast", 6), ("ddim", 25), ("dpm++", 20), ("dpm++sde", 25), ("unipc", 10)]
)
def test_every_sampler_follows_the_protocol(name: str, steps: int) -> None:
    sampler: Sampler = make_sampler(name, LINEAR)

    assert len(sampler.timesteps) == steps
    assert all(0 <= timestep <= STEPS - 1 for timestep in sampler.timesteps)
    signal, timestep = next(sampler.chain(NoiseField([1], 4)))
    assert signal.shape == (1, 1, 4)
    assert timestep == sampler.timesteps[0]


def test_names_and_summaries() -> None:
    names = ("ddpm", "fast", "ddim", "dpm++", "dpm++sde", "unipc")
    assert tuple(SAMPLERS) == tuple(sampler.name for sampler in SAMPLERS.values()) == names
    assert all(sampler.summary for sampler in SAMPLERS.values())
    assert choices.SAMPLERS.startswith("ddpm (all timesteps, as released), fast (6 large steps), ")
    assert choices.SCHEDULES == SCHEDULES


@pytest.mark.parametrize(
    ("name", "steps", "eta", "words"),
    [
        ("euler", None, None, r"sampler 'euler': expected ddpm, fast, ddim, dpm\+\+, dpm\+\+sde or unipc"),
        ("ddpm", 20, None, r"steps 20: sampler ddpm takes 50; take a sampler with any number of steps"),
        ("dpm++", 51, None, "steps 51: expected 1 to 50"),
        ("ddim", 0, None, "steps 0: expected 1 to 50"),
        ("ddpm", None, 0.0, "eta 0: only sampler ddim has an eta, ddpm has none"),
        ("ddim", 10, 1.5, "eta 1.5: expected a number from 0"),
        ("ddim", 10, float("nan"), "eta nan"),
    ],
)
def test_parameters_that_a_sampler_does_not_take(name: str, steps: int | None, eta: float | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_sampler(name, LINEAR, steps, eta)


@pytest.mark.parametrize(
    ("name", "steps", "timesteps", "words"),
    [
        ("ddpm", None, [49], r"timesteps: sampler ddpm takes none; take ddim, dpm\+\+, dpm\+\+sde or unipc"),
        ("fast", None, [49], "timesteps: sampler fast takes none"),
        ("ddim", 3, [49, 0], "steps 3: there are 2 timesteps; leave out one of the two"),
        ("unipc", None, [], "timesteps: expected one or more"),
        ("unipc", None, [49, 49, 0], "timesteps: 49 follows 49; expected each to be less than the one before"),
        ("dpm++", None, [10, 20], "timesteps: 20 follows 10"),
        ("dpm++sde", None, [50, 20], "timesteps: 50 is out of range; expected 0 to 49"),
        ("ddim", None, [20, -1], "timesteps: -1 is out of range"),
    ],
)
def test_timesteps_that_are_refused(name: str, steps: int | None, timesteps: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_sampler(name, LINEAR, steps, timesteps=timesteps)


@pytest.mark.parametrize("name", ["ddim", "dpm++", "dpm++sde", "unipc"])
def test_explicit_timesteps_are_those_of_the_denoiser(name: str) -> None:
    assert make_sampler(name, LINEAR, 3, timesteps=[49, 11, 0]).timesteps == (49, 11, 0)


def test_names_are_known_without_numpy() -> None:
    program = """
import sys
from gomin_client.sampling.registry import SAMPLERS
from gomin_client.sampling.settings import SamplerSettings
assert SamplerSettings("ddim", 5).over(SamplerSettings(schedule="cosine")).schedule == "cosine"
assert len(SAMPLERS) == 6
print([name for name in sys.modules if name.startswith(("numpy", "gomin_client.sampling."))])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert result.stdout.split("\n")[0] == "['gomin_client.sampling.registry', 'gomin_client.sampling.settings']"


def test_a_list_in_words() -> None:
    assert one_of(["a"]) == "a"
    assert one_of(["a", "b", "c"]) == "a, b or c"


@pytest.mark.usefixtures("toy")
class TestASamplerOfOnesOwn:
    def test_it_is_one_file_and_one_line(self, repository: Path) -> None:
        mel = np.full((32, 6), 0.5, np.float32)

        assert SamplerSettings("toy").resolved(STEPS) == SamplerSettings("toy", 1, "linear")
        with Vocoder(f"local:{repository}", "diffusion", sampler="toy") as vocoder:
            audio = vocoder.synthesize(mel, seed=1)
            assert vocoder.sampling == SamplerSettings("toy", 1, "linear")
        with Vocoder(f"local:{repository}", "diffusion", sampler="dpm++", steps=1) as vocoder:
            one_step = vocoder.synthesize(mel, seed=1)

        # the last step of DPM-Solver++ returns the predicted signal too
        np.testing.assert_allclose(audio, one_step, rtol=0, atol=1e-6)
        with pytest.raises(UsageError, match="steps 3: sampler toy takes 1"):
            Vocoder(f"local:{repository}", "diffusion", sampler="toy", steps=3)

    def test_errors_list_it(self) -> None:
        with pytest.raises(ValueError, match=r"expected ddpm, fast, ddim, dpm\+\+, dpm\+\+sde, unipc or toy"):
            make_sampler("euler", LINEAR)
        with pytest.raises(ValueError, match="toy has none"):
            make_sampler("toy", LINEAR, eta=0.5)

    def test_a_function_can_be_registered(self) -> None:
        registry.register("toy2", "as toy", lambda schedule, steps=None: make_sampler("toy", schedule, steps))

        assert make_sampler("toy2", LINEAR).timesteps == (49,)

    def test_a_name_can_be_registered_once(self) -> None:
        with pytest.raises(ValueError, match="sampler 'toy' is already registered"):
            registry.register(*TOY)


def test_help_lists_a_registered_sampler() -> None:
    program = f"""
from typer.testing import CliRunner
from gomin_client.sampling import registry
registry.register(*{TOY!r})
from gomin_client.cli.main import app
print(CliRunner().invoke(app, ["reconstruct", "--help"], env={{"COLUMNS": "400"}}).output)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    assert "second order with correction), toy (one step)." in " ".join(result.stdout.split())
