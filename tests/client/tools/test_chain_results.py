import pytest

from gomin_client.errors import UsageError
from gomin_client.sampling.settings import SamplerSettings
from gomin_client.tools.calibration import Measurement
from gomin_client.tools.chain_results import fastest_enough, shortest_within, summarize, table

FULL = SamplerSettings("ddpm", 50, "linear")


def measurement(sampler: str, steps: int, elapsed_s: float, to_full_db: float, eta: float | None = None) -> Measurement:
    return Measurement(
        SamplerSettings(sampler, steps, "linear", eta), "a.wav", "00", 1.0, elapsed_s, 4.0, 1.0, to_full_db
    )


MEASURED = [
    measurement("ddpm", 50, 2.0, 0.0),
    measurement("unipc", 10, 0.4, 0.3),
    measurement("ddim", 10, 0.4, 0.3),
    measurement("ddim", 20, 0.8, 0.15),
    measurement("ddim", 25, 1.0, 0.18),
    measurement("fast", 6, 0.2, 1.0),
]


def test_means_are_weighted_by_duration() -> None:
    chain = SamplerSettings("unipc", 5, "linear")
    short = Measurement(chain, "a.wav", "00", 1.0, 0.5, 2.0, 1.0, 0.4)
    long = Measurement(chain, "b.wav", "01", 3.0, 0.3, 6.0, 2.0, 0.8)

    (result,) = summarize([short, long])

    assert (result.log_mel_l1_db, result.log_magnitude_l1) == (5.0, 1.75)
    assert (result.to_full_db, result.times_real_time) == pytest.approx((0.7, 5.0))


def test_the_nearest_of_those_that_are_fast_enough() -> None:
    assert fastest_enough(summarize(MEASURED), 1.2).chain == SamplerSettings("ddim", 20, "linear")
    assert fastest_enough(summarize(MEASURED), 0.1).chain == FULL


def test_the_choice_between_equal_ones_does_not_depend_on_their_order() -> None:
    for measured in (MEASURED, MEASURED[::-1]):
        assert fastest_enough(summarize(measured), 2).chain == SamplerSettings("ddim", 10, "linear")


def test_no_chain_is_fast_enough() -> None:
    with pytest.raises(UsageError, match=r"--rtf-target 9: no chain is .* fast, 6 steps, with 5\.00 × real time"):
        fastest_enough(summarize(MEASURED), 9)


@pytest.mark.parametrize(("share", "steps"), [(0.0, 50), (0.04, 20), (0.05, 20), (0.08, 10), (1.0, 6)])
def test_the_fewest_steps_within_a_share_whatever_their_time(share: float, steps: int) -> None:
    assert shortest_within(summarize(MEASURED), FULL, share).chain.steps == steps


def test_a_share_needs_the_full_chain() -> None:
    with pytest.raises(UsageError, match="--within 5%: the full chain, ddpm, was not measured"):
        shortest_within(summarize(MEASURED[1:]), FULL, 0.05)


def test_the_table_marks_the_pareto_set() -> None:
    results = summarize([*MEASURED, measurement("ddim", 5, 0.15, 2.0, eta=0.5)])
    optimal = [(one.chain.sampler, one.chain.steps) for one in results if one.is_optimal]
    assert optimal == [("ddim", 5), ("fast", 6), ("ddim", 10), ("unipc", 10), ("ddim", 20), ("ddpm", 50)]

    head, *rows, note = table(results).splitlines()

    assert len({len(row) for row in rows}) == 1
    assert head.split()[:3] == ["sampler", "steps", "eta"]
    assert rows[0].split() == ["*", "ddim", "5", "0.5", "6.67", "2.000", "4.000", "1.000"]
    assert rows[-2].split() == ["ddim", "25", "-", "1.00", "0.180", "4.000", "1.000"]
    assert [row[0] for row in rows] == ["*", "*", "*", "*", "*", " ", "*"]
    assert note.startswith("* Pareto set")
    assert results[0].name == "ddim, 5 steps, eta 0.5"


def test_explicit_timesteps_have_a_column_of_their_own() -> None:
    chain = SamplerSettings("ddim", 3, "linear", 0.0, "49,20,0")
    results = summarize([*MEASURED, Measurement(chain, "a.wav", "00", 1.0, 0.1, 4.0, 1.0, 0.1)])

    head, first, second, *_ = table(results).splitlines()

    assert head.split()[-1] == "timesteps"
    assert first.split()[-2:] == ["1.000", "49,20,0"]
    assert second.split() == ["fast", "6", "-", "5.00", "1.000", "4.000", "1.000"]  # not in the Pareto set any more
    assert results[0].name == "ddim, 3 steps, eta 0, timesteps 49,20,0"
    assert shortest_within(results, FULL, 0.05).chain == chain
