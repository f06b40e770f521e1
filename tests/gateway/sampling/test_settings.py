"""web/sampling/settings.js, text.js and registry.js: the settings, names and messages of the Python package."""

import inspect

import pytest

from gomin_client.sampling.registry import SAMPLERS, SCHEDULES
from gomin_client.sampling.settings import SamplerSettings
from tests.gateway.sampling.cases import Case
from tests.gateway.sampling.conftest import Answers, asked


def test_the_registries_have_the_same_samplers(answers: Answers) -> None:
    """A page without a server offers the samplers that registry.js has."""
    [(_, answer)] = answers["registry"]
    made = [
        [
            sampler.name,
            sampler.summary,
            [name for name in ("eta", "timesteps") if name in inspect.signature(sampler.maker()).parameters],
        ]
        for sampler in SAMPLERS.values()
    ]

    assert answer["value"] == {"samplers": made, "schedules": list(SCHEDULES)}, (
        "the gateway's web/sampling/registry.js and gomin_client/sampling/registry.py differ: write the sampler in "
        "JavaScript too, as docs/contributing.md describes"
    )


def test_settings_and_messages(answers: Answers) -> None:
    for case, answer in answers["settings"]:
        assert answer == asked(python_settings, case)


def python_settings(case: Case) -> dict[str, str | int | float]:
    usual = SamplerSettings.from_parameters(case["usual"])
    return SamplerSettings.from_parameters(case["given"]).over(usual).resolved(case["steps"]).to_parameters()


def test_numbers_in_messages(answers: Answers) -> None:
    for case, answer in answers["eta"]:
        with pytest.raises(ValueError) as raised:  # noqa: PT011
            SamplerSettings("ddim", eta=float(case["eta"])).make(50)

        assert answer == {"error": str(raised.value)}


def test_the_text_of_a_form(answers: Answers) -> None:
    usual = "schedule=linear"
    assert [answer.get("value") or answer["error"] for _, answer in answers["form"]] == [
        f"sampler=ddpm, steps=50, {usual}",
        f"sampler=ddim, steps=10, {usual}, eta=0.5",
        f"sampler=ddim, steps=10, {usual}, eta=1.0",
        f"sampler=ddim, steps=25, {usual}, eta=1e-05",
        "steps 'ten': expected a whole number",
        "steps '2.5': expected a whole number",
        "steps '0x10': expected a whole number",
        "eta 'half': expected a number",
        "eta '.': expected a number",
        "eta 2: expected a number from 0 (no fresh noise) to 1 (as much as ddpm)",
    ]
