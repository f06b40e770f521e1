from typing import Any

import pytest

from gomin_client.contract import choices
from gomin_client.contract import model as contract
from gomin_client.sampling import settings as settings_module
from gomin_client.sampling.settings import SamplerSettings

CONFIGURED = SamplerSettings("ddim", 10, "cosine", 0.5)


def test_a_config_sets_defaults() -> None:
    parameters = {"gomin.sampler": "ddim", "gomin.steps": "10", "gomin.eta": "0.5", "gomin.schedule": "cosine"}

    assert SamplerSettings.from_config(parameters) == CONFIGURED
    assert SamplerSettings.from_config({"gomin.timesteps": "49,3"}) == SamplerSettings(timesteps="49,3")
    assert SamplerSettings.from_config({"gomin.n_mels": "128"}) == SamplerSettings()


@pytest.mark.parametrize("name", ["steps", "eta"])
def test_a_config_without_a_number(name: str) -> None:
    with pytest.raises(ValueError, match=rf"config parameter gomin\.{name} is 'few': not a number"):
        SamplerSettings.from_config({f"gomin.{name}": "few"})


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (SamplerSettings(), CONFIGURED),
        (SamplerSettings("ddim"), CONFIGURED),
        (SamplerSettings("dpm++"), SamplerSettings("dpm++", None, "cosine")),
        (SamplerSettings("ddpm"), SamplerSettings("ddpm", None, "cosine")),
        (SamplerSettings("dpm++", 7, "linear"), SamplerSettings("dpm++", 7, "linear")),
        (SamplerSettings(eta=1), SamplerSettings("ddim", 10, "cosine", 1)),
        (SamplerSettings(steps=1), SamplerSettings("ddim", 1, "cosine", 0.5)),
        (SamplerSettings(eta=0.0), SamplerSettings("ddim", 10, "cosine", 0.0)),
        (SamplerSettings(timesteps="49, 3"), SamplerSettings("ddim", None, "cosine", 0.5, "49,3")),
    ],
)
def test_what_is_not_chosen_is_the_default_but_for_steps_and_eta_of_another_sampler(
    chosen: SamplerSettings, expected: SamplerSettings
) -> None:
    assert chosen.over(CONFIGURED) == expected


def test_a_number_of_steps_replaces_the_timesteps_of_the_default() -> None:
    default = SamplerSettings("ddim", 2, timesteps="49,3")

    assert SamplerSettings().over(default) == default
    assert SamplerSettings(steps=7).over(default) == SamplerSettings("ddim", 7)
    assert SamplerSettings("unipc").over(default) == SamplerSettings("unipc")


def test_a_default_without_a_sampler_is_ddpm() -> None:
    default = SamplerSettings(steps=50)

    assert SamplerSettings("ddpm").over(default) == SamplerSettings("ddpm", 50)
    assert SamplerSettings("ddim").over(default) == SamplerSettings("ddim")


def test_resolved_says_what_the_released_chain_is() -> None:
    assert SamplerSettings().resolved(50) == SamplerSettings("ddpm", 50, "linear")
    assert SamplerSettings("ddim", eta=0.5).resolved(50) == SamplerSettings("ddim", 25, "linear", 0.5)
    assert SamplerSettings("dpm++", schedule="cosine").resolved(10) == SamplerSettings("dpm++", 10, "cosine")
    explicit = SamplerSettings("ddim", timesteps="49,3,0")
    assert explicit.resolved(50) == SamplerSettings("ddim", 3, "linear", timesteps="49,3,0")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (SamplerSettings("euler"), "sampler 'euler': expected"),
        (SamplerSettings(schedule="sigmoid"), "schedule 'sigmoid': expected linear, cosine or interpolated"),
        (SamplerSettings(steps=20), "sampler ddpm takes 50"),
        (SamplerSettings(eta=0.5), "only sampler ddim has an eta"),
    ],
)
def test_settings_that_no_sampler_has(settings: SamplerSettings, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings.make(50)


def test_request_parameters_round_trip() -> None:
    parameters = {"sampler": "ddim", "steps": 2, "eta": 1, "timesteps": "49,3"}

    assert SamplerSettings.from_parameters(parameters).to_parameters() == parameters


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"step": 3}, "unknown request parameter 'step': expected sampler, steps, schedule, eta or timesteps"),
        ({"steps": "3"}, "steps '3': expected a whole number"),
        ({"steps": True}, "steps True"),
        ({"steps": 3.0}, "steps 3.0"),
        ({"steps": None}, "steps None: expected a whole number"),
        ({"eta": "much"}, "eta 'much': expected a number"),
        ({"sampler": 3}, "sampler 3: expected a name"),
        ({"timesteps": 49}, "timesteps 49: expected whole numbers with commas between them"),
        ({"timesteps": ""}, "timesteps '': expected whole numbers"),
        ({"timesteps": "49,,3"}, "timesteps '49,,3': expected whole numbers"),
        ({"timesteps": "49,1 2"}, "timesteps '49,1 2': expected whole numbers"),
        ({"timesteps": "49,-3"}, "timesteps '49,-3': expected whole numbers"),
        ({"timesteps": "49,2.5"}, "timesteps '49,2.5': expected whole numbers"),
    ],
)
def test_parameters_of_the_wrong_type(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SamplerSettings.from_parameters(parameters)


def test_names_are_the_same_everywhere() -> None:
    assert contract.PARAMETER_PREFIX == settings_module.PARAMETER_PREFIX
    names = ("sampler", "steps", "schedule", "eta", "timesteps")
    assert choices.SAMPLER_PARAMETERS == names == tuple(settings_module._EXPECTED)
