"""web/sampling/noise.js and philox.js draw the noise that gomin_client.sampling.noise draws."""

import numpy as np

from gomin_client.sampling.base import Array
from gomin_client.sampling.noise import NoiseField
from tests.gateway.sampling.cases import Case
from tests.gateway.sampling.conftest import Answers, array, asked


def test_words_are_those_of_numpy_to_the_bit(answers: Answers) -> None:
    for case, answer in answers["words"]:
        counter = int(case["block"]) + (case["draw"] << 64)
        words = np.random.Philox(key=int(case["seed"]), counter=counter).random_raw(4 * case["blocks"])

        np.testing.assert_array_equal(array(answer, np.uint64), words)


def python_noise(case: Case) -> Array:
    field = NoiseField([int(case["seed"])], case["length"], [int(case["first"])])
    return field(case["draw"])[0, 0]


def test_normals_differ_by_rounding_at_most(answers: Answers) -> None:
    for case, answer in answers["noise"]:
        made = asked(python_noise, case)
        if "error" in made:
            assert answer == made
            continue
        noise = array(answer, np.float32)

        assert len(noise) == case["length"]
        np.testing.assert_array_max_ulp(noise, made["value"], maxulp=1)
