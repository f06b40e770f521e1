"""web/sampling/schedules.js and spacing.js: the schedules and timesteps of the Python package."""

import numpy as np

from gomin_client.sampling.base import Array
from gomin_client.sampling.ddim import DDIM
from gomin_client.sampling.dpm_solver import DPMSolver
from gomin_client.sampling.dpm_solver_sde import SDEDPMSolver
from gomin_client.sampling.schedules import NoiseSchedule
from gomin_client.sampling.unipc import UniPC
from tests.gateway.sampling.cases import Case
from tests.gateway.sampling.conftest import Answers, array, asked

TOLERANCE = 1e-12


def test_schedules(answers: Answers) -> None:
    for case, answer in answers["schedule"]:
        made = asked(python_schedule, case)
        if "error" in made:
            assert answer == made
            continue
        np.testing.assert_allclose(array(answer, np.float32), made["value"], rtol=0, atol=TOLERANCE, err_msg=str(case))


def test_betas(answers: Answers) -> None:
    for case, answer in answers["betas"]:
        made = asked(python_betas, case)
        if "error" in made:
            assert answer == made
            continue
        np.testing.assert_array_equal(array(answer, np.float32), made["value"])


def test_timesteps(answers: Answers) -> None:
    for case, answer in answers["timesteps"]:
        assert answer == asked(python_timesteps, case), case


def python_schedule(case: Case) -> Array:
    return NoiseSchedule.named(case["name"], case["steps"]).alphas_cumprod


def python_betas(case: Case) -> Array:
    return NoiseSchedule.from_betas([float(beta) for beta in case["betas"]]).alphas_cumprod


def python_timesteps(case: Case) -> list[float]:
    schedule = NoiseSchedule.named(*case["schedule"])
    sampler = {"ddim": DDIM, "dpm++": DPMSolver, "dpm++sde": SDEDPMSolver, "unipc": UniPC}[case["sampler"]]
    return list(sampler(schedule, case["steps"], spacing=case["spacing"]).timesteps)
