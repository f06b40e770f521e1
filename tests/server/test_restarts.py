"""When a crashed server is restarted, and when that is given up."""

import itertools

from gomin_server.restarts import FAILED_STARTS, LONGEST_DELAY_S, Restarts


def test_delays_grow_to_a_bound() -> None:
    restarts = Restarts(100)

    assert [restarts.delay(0.0, True) for _ in range(4)] == [0.5, 1.0, 2.0, 2.0]


def test_given_up_after_a_number_of_restarts_within_a_minute() -> None:
    restarts = Restarts(3)

    assert None not in [restarts.delay(time, True) for time in (0.0, 10.0, 20.0)]
    assert restarts.recent == 3
    assert restarts.delay(59.0, True) is None


def test_old_restarts_do_not_count() -> None:
    restarts = Restarts(3)

    assert [restarts.delay(31.0 * number, True) for number in range(10)] == [0.5, *[1.0] * 9]


def test_a_server_that_never_becomes_ready_is_given_up_however_long_its_starts_take() -> None:
    restarts = Restarts(10)

    delays = [restarts.delay(100.0 * number, False) for number in range(FAILED_STARTS)]

    assert None not in delays[:-1]
    assert delays[-1] is None


def test_a_start_that_succeeds_ends_the_succession_of_failures() -> None:
    restarts = Restarts(10)

    ready = itertools.chain.from_iterable([[False] * (FAILED_STARTS - 1), [True]] * 3)

    assert None not in [restarts.delay(100.0 * number, was_ready) for number, was_ready in enumerate(ready)]


def test_zero_means_never() -> None:
    assert Restarts(0).delay(0.0, True) is None


def test_the_limit_can_be_reached_by_a_server_that_takes_seconds_to_start() -> None:
    """Otherwise one that crashes at once would be restarted for ever."""
    restarts = Restarts(10)
    time = 0.0

    while (delay := restarts.delay(time, True)) is not None:
        assert delay <= LONGEST_DELAY_S
        time += delay + 4.0
        assert time < 120
